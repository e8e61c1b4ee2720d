/**
 * Types of samplers: the coefficients of each step, in the form of the device op `latent_step`.
 */
import type { SchedulerConfig } from "./config.ts";
import type { FirstSigma, Flavour, SigmaKind, TimestepRounding, TimestepSpacing } from "./names.ts";

/** Coefficients of one register's new value (see `StepCoefficients`). */
export interface Update {
  sample: number;
  auxiliary: number;
  /** Newest first. */
  modelOutputs: [number, number, number, number];
  noise: number;
}

/**
 * One step of a sampler (diffusers: `scheduler.step`) as a linear combination. x is the latent
 * (`sample`), e the model output after guidance, s the auxiliary register (`last_sample`), m_k the
 * converted model outputs (`model_outputs`), newest first, z fresh noise:
 *
 *     m_0 = outputFromSample·x + outputFromModel·e                     (`convert_model_output`)
 *           in a place of its own, or in that of the last one where `replacesOutput`
 *     x'  = latent.sample·x + latent.auxiliary·s + sum_k latent.modelOutputs[k]·m_k
 *           + latent.noise·z
 *     s'  = the same with the coefficients `auxiliary`, or s where that is null
 *
 * x' and s' both read the old x and s. The model's input is inputScale·x (`scale_model_input`) at
 * `timestep`. Guidance is the image's scale times `guidanceFactor`.
 */
export interface StepCoefficients {
  timestep: number;
  inputScale: number;
  outputFromSample: number;
  outputFromModel: number;
  latent: Update;
  auxiliary: Update | null;
  /**
   * Whether m_0 takes the place of the newest output so far; else that and the older ones move on.
   * Default: they do.
   */
  replacesOutput?: boolean;
  /**
   * Whether z is sampled. Ancestral samplers sample it even where its coefficient is 0: the
   * generator's state decides the noise of later steps.
   */
  samplesNoise: boolean;
  /** Default: 1. */
  guidanceFactor?: number;
  /**
   * The step of the Brownian path that z is, in the sampler's sigmas: z = (W(noiseTo) -
   * W(noiseFrom)) / sqrt(|noiseTo - noiseFrom|). Read where the noise of the request is Brownian;
   * default: 0 and 0.
   */
  noiseFrom?: number;
  noiseTo?: number;
}

/** A noisy latent is `signal` times the clean one and `noise` times standard normal noise. */
export interface NoiseLevel {
  signal: number;
  noise: number;
}

/** What a sampler makes of a config and options. */
export interface Steps {
  /** One per evaluation of the model: samplers of two evaluations per step have twice as many. */
  steps: StepCoefficients[];
  /**
   * The step of each evaluation, from 0 on, where steps differ in their number of evaluations
   * beyond the first and the last.
   */
  stepOfEvaluation?: readonly number[];
  /** The model's timestep input, one per evaluation, in f32 as in the reference. */
  timesteps: Float32Array;
  /** The noise level of each evaluation and the final one; null for samplers without sigmas. */
  sigmas: Float32Array | null;
  /** Standard deviation of the first latent: standard normal noise is multiplied by it. */
  initNoiseSigma: number;
  /** Of an image to start from, where it is not the level of the first evaluation. */
  startLevel?: NoiseLevel | undefined;
  /**
   * Whether steps scale guidance by more than 0, so that the negative branch counts at scale 1 too.
   */
  usesBothBranches?: boolean;
}

/** Each overrides the model's config when given. */
export interface ScheduleOptions {
  stepCount: number;
  /** Default: diffusers. */
  flavour?: Flavour | undefined;
  /** A spacing, or the noise levels themselves with the final one: a step fewer than these. */
  sigmas?: SigmaKind | readonly number[] | undefined;
  /** The timesteps themselves, falling, as many as steps. */
  timesteps?: readonly number[] | undefined;
  /** The same as `sigmas`: "karras", or not "karras". */
  useKarrasSigmas?: boolean | undefined;
  timestepSpacing?: TimestepSpacing | undefined;
  timestepRounding?: TimestepRounding | undefined;
  firstSigma?: FirstSigma | undefined;
  /** How much of the noise is fresh in each step, 0 to 1. */
  eta?: number | undefined;
  /** Fresh noise is multiplied by it. */
  sNoise?: number | undefined;
  /** Steps that are left out at the beginning (`first-step.ts`). Default: 0. */
  firstStep?: number | undefined;
  /** Whether an image with noise is what is left begins at; A1111 has other timesteps then. */
  startsFromImage?: boolean | undefined;
}

/** A file of `samplers/`. */
export interface Sampler {
  /** The options that it follows; makeSchedule refuses `sigmas` where they are not among these.
   * Who follows sigmas follows timesteps and, but for A1111's own timesteps, their rounding. */
  follows: readonly (
    | "sigmas"
    | "lu"
    | "timesteps"
    | "timestepSpacing"
    | "timestepRounding"
    | "eta"
  )[];
  /** Whether the sigmas of a config are followed, or those of the flag alone. Default: they are. */
  followsConfigSigmas?: false;
  /** Whether the flavours of k-diffusion have it; it then follows sigmas and timesteps there. */
  hasKForm: boolean;
  /** Whether A1111's has timesteps of its own instead. */
  isOfTimesteps?: true;
  /** Whether those take its noise from a Brownian path; `noiseFrom` and `noiseTo` are then set. */
  isBrownian?: true;
  /** Which configs of its class are its own, where several samplers share one. */
  isOf?(config: SchedulerConfig): boolean;
  make(config: SchedulerConfig, options: MakeOptions): Steps;
}

export interface MakeOptions extends Omit<ScheduleOptions, "sigmas"> {
  /** That of diffusers where the sampler has no other form. */
  flavour: Flavour;
  /** What options and config ask for together. */
  sigmas: SigmaChoice;
}

/** A spacing of noise levels, or a list that takes its place. */
export type SigmaChoice =
  | SigmaKind
  | { sigmas: readonly number[] }
  | { timesteps: readonly number[] };
