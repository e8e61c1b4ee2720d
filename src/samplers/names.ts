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
 * beta_timesteps: diffusers spaces the noise levels themselves, and had the name first. lcm are
 * those of ComfyUI's ModelSamplingDiscrete node, which Fooocus takes for LCM.
 */
export const comfyKinds = [
  "sgm_uniform",
  "simple",
  "ddim_uniform",
  "beta_timesteps",
  "linear_quadratic",
  "kl_optimal",
  "ays",
  "lcm",
] as const;
export type ComfyKind = (typeof comfyKinds)[number];

/** How noise levels are spaced. */
export const sigmaKinds = ["normal", ...rangeKinds, ...comfyKinds] as const;
export type SigmaKind = (typeof sigmaKinds)[number];

/**
 * Whose formulas, noise levels and ends a sampler has where they differ: those of diffusers, of
 * k-diffusion as ComfyUI has it, or of k-diffusion as A1111 has it.
 */
export type Flavour = "diffusers" | "kdiffusion" | "a1111";

/** What a model is told between two of its timesteps. */
export const timestepRoundings = ["auto", "none", "nearest"] as const;
export type TimestepRounding = (typeof timestepRoundings)[number];

/** What the first noise is multiplied by: sigma, or sqrt(1 + sigma^2). */
export const firstSigmas = ["auto", "sigma", "sqrt"] as const;
export type FirstSigma = (typeof firstSigmas)[number];
