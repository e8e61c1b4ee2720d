/**
 * The names of spacings, of what models predict, and of the other choices that samplers know.
 * `settings/names.ts` hands them on.
 */

/** What a UNet was trained to predict, as diffusers names it. */
export const predictionTypes = ["epsilon", "v_prediction", "sample"] as const;
export type PredictionType = (typeof predictionTypes)[number];

/** Which training timesteps a run visits, as diffusers names it. */
export const timestepSpacings = ["leading", "trailing", "linspace"] as const;
export type TimestepSpacing = (typeof timestepSpacings)[number];

/** Spacings of noise levels between two, as diffusers' configs name them: use_karras_sigmas, ... */
const rangeKinds = ["karras", "exponential", "beta", "lu"] as const;
export type RangeKind = (typeof rangeKinds)[number];

/**
 * The schedules of ComfyUI, by its names. Its beta is the paper's, of timesteps, and is called
 * beta_timesteps: diffusers spaces the noise levels themselves, and had the name first.
 */
export const comfyKinds = [
  "sgm_uniform",
  "simple",
  "ddim_uniform",
  "beta_timesteps",
  "linear_quadratic",
  "kl_optimal",
  "ays",
] as const;
export type ComfyKind = (typeof comfyKinds)[number];

/** How noise levels are spaced. */
export const sigmaKinds = ["normal", ...rangeKinds, ...comfyKinds] as const;
export type SigmaKind = (typeof sigmaKinds)[number];
