/**
 * Names of modules in diffusers and in original files, from one table of pairs and a model's
 * configuration. In reading order: the table, then who counts its indices.
 */
export {
  clipModuleNames,
  openClipModuleNames,
  openClipVisionModuleNames,
} from "./names/clip.ts";
export type { ModuleName } from "./names/module-name.ts";
export { unetModuleNames } from "./names/unet.ts";
export { vaeModuleNames } from "./names/vae.ts";
