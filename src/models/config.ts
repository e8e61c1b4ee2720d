/**
 * The config.json files of a diffusers folder, checked and in one shape. diffusers' own
 * defaults fill keys that a file leaves out, so never add a default that diffusers does not have.
 *
 * The facade of `config-*.ts`, one file per component.
 */
export { type ClipConfig, parseClipConfig } from "./config-clip.ts";
export {
  type PredictionType,
  parseSchedulerConfig,
  type SchedulerConfig,
} from "./config-scheduler.ts";
export { parseUnetConfig, type UnetConfig } from "./config-unet.ts";
export { parseVaeConfig, type VaeConfig } from "./config-vae.ts";
