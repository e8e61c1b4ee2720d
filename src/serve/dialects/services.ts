/**
 * What every dialect stands on.
 */
import type { CapabilitySource } from "../capabilities.ts";
import type { JobService } from "../jobs/types.ts";

export interface DialectServices {
  jobs: JobService;
  capabilities: CapabilitySource;
  /** The folder of outputs. */
  folder: string;
}
