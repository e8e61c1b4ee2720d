/**
 * What every dialect stands on.
 */
import type { CapabilitySource } from "../capabilities.ts";
import type { ImageJobService } from "../jobs/types.ts";

export interface DialectServices {
  jobs: ImageJobService;
  capabilities: CapabilitySource;
  /** The folder of outputs. */
  folder: string;
}
