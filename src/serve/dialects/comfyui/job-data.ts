/**
 * What is kept with a job of ComfyUI's dialect, for answers after a restart.
 */
import type { JobView } from "../../jobs/types.ts";
import type { Prompt } from "./graph.ts";

export interface ComfyData {
  /** The client's own id of the prompt; absent where the job's serves. */
  promptId?: string;
  /** The order in the queue. */
  number: number;
  prompt: Prompt;
  extraData: Readonly<Record<string, unknown>>;
  /** Ids of nodes: those that show images, in the order of execution, and two of the work. */
  outputs: string[];
  order: string[];
  sampler: string;
  /** The first of two samplers. */
  first?: string;
  /** Its steps, where the second goes on with the rest of them. */
  firstSteps?: number;
  decode: string;
}

/** null for jobs of others, and for those that another version kept otherwise. */
export function comfyDataOf({ spec }: JobView): ComfyData | null {
  const data = spec.dialectData as Partial<ComfyData> | undefined;
  const isOwn = spec.dialect === "comfyui" && Array.isArray(data?.order) && data.prompt;
  return isOwn ? (data as ComfyData) : null;
}

export function promptIdOf(job: JobView, data: ComfyData): string {
  return data.promptId ?? job.id;
}

/** Whose socket gets the messages. */
export function clientIdOf({ extraData }: ComfyData): string | null {
  return typeof extraData.client_id === "string" ? extraData.client_id : null;
}
