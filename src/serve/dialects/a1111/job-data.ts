/**
 * What is kept with a job of A1111's dialect, for answers after a restart.
 */
import type { JobView } from "../../jobs/types.ts";

export interface JobData {
  /** The client's `force_task_id`; absent where it has none. */
  taskId?: string;
  /** Of the first image, as texts of digits. */
  seed: string;
  subseed: string;
  /** A1111's n_iter. */
  iterations: number;
  warnings: readonly string[];
  model: { name: string; hash: string | null };
}

/** null for jobs of others, and for those that another version kept otherwise. */
export function jobDataOf({ spec }: JobView): JobData | null {
  const data = spec.dialectData as Partial<JobData> | undefined;
  return spec.dialect === "a1111" && data?.iterations ? (data as JobData) : null;
}
