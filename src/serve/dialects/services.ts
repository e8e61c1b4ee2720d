/**
 * What every dialect stands on.
 */
import type { CapabilitySource } from "../capabilities.ts";
import type { JobService } from "../jobs/types.ts";
import type { Upscaling } from "../upscaling.ts";

export interface DialectServices {
  jobs: JobService;
  capabilities: CapabilitySource;
  /** null where workers have the models. */
  upscaling: Upscaling | null;
  /** The folder of outputs. */
  folder: string;
}
