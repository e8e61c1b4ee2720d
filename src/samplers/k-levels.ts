/**
 * Noise levels and timesteps of a run as ComfyUI and A1111 make them: spacings cover the whole of
 * the model's levels, and end at 0. For some samplers one level more is spaced than visited, and
 * the last above 0 left out.
 *
 * Sources: ComfyUI comfy/samplers.py; AUTOMATIC1111 modules/sd_schedulers.py; k-diffusion
 * sampling.py.
 */
import { linspace } from "./betas.ts";
import { alignedA1111Sigmas, comfySigmas } from "./comfy-sigmas.ts";
import type { SchedulerConfig } from "./config.ts";
import { fromStep } from "./first-step.ts";
import { type KModel, kModel } from "./k-model.ts";
import { spacedSigmas } from "./sigma-kinds.ts";
import type { MakeOptions } from "./types.ts";

const f32 = Math.fround;
const rho = 7;

export interface Levels {
  /** Falling, one per step. */
  timesteps: Float32Array;
  /** One more, falling. */
  sigmas: Float32Array;
  initNoiseSigma: number;
  /** The timestep of another noise level. */
  timestepOf(sigma: number): number;
}

/** What samplers differ in. */
export interface KTraits {
  /** Whether the last level above 0 is left out. */
  discardsLast?: boolean;
  /** Whether the timesteps are those of LCM's teacher, whatever the spacing. */
  isDistilled?: boolean;
}

export function kLevels(
  config: SchedulerConfig,
  options: MakeOptions,
  { discardsLast = false, isDistilled = options.sigmas === "lcm" }: KTraits = {},
): Levels {
  const { flavour, timestepRounding: rounding = "auto" } = options;
  const model = kModel(config, { flavour, rounding, isDistilled });
  const { sigmas, timesteps } = visited(options, model, discardsLast);
  const { timestepOf } = model;
  const whole = {
    timesteps: Float32Array.from(timesteps ?? sigmas.slice(0, -1).map(timestepOf)),
    sigmas: Float32Array.from(sigmas),
  };
  const levels = fromStep(whole, options.firstStep);
  // The caller decides what the first noise is multiplied by.
  return { ...levels, initNoiseSigma: levels.sigmas[0]!, timestepOf };
}

// --- internal ---

/** Timesteps are those of the levels where they are not given. */
function visited(options: MakeOptions, model: KModel, discardsLast: boolean) {
  const { sigmas: choice, stepCount } = options;
  if (typeof choice === "object") {
    if ("sigmas" in choice) return { sigmas: choice.sigmas, timesteps: null };
    return { sigmas: [...choice.timesteps.map(model.sigmaAt), 0], timesteps: choice.timesteps };
  }
  const sigmas = spaced(choice, options, model, stepCount + Number(discardsLast));
  if (discardsLast) sigmas.splice(-2, 1);
  return { sigmas, timesteps: null };
}

/** With the final level. */
function spaced(
  kind: Exclude<MakeOptions["sigmas"], object>,
  { flavour }: MakeOptions,
  model: KModel,
  count: number,
): number[] {
  const { sigmas: table, sigmaAt, timestepOf } = model;
  const [least, most] = [table[0]!, table.at(-1)!];
  const isA1111 = flavour === "a1111";
  switch (kind) {
    case "normal": {
      const [start, end] = [timestepOf(most), timestepOf(least)];
      return [...linspace(start, end, count)].map(sigmaAt).concat(0);
    }
    // In f32, each operation rounded: timesteps between two inherit the last bit.
    case "karras": {
      const [start, end] = [most ** (1 / rho), least ** (1 / rho)];
      const ramp = [...linspace(0, 1, count)];
      return ramp.map((place) => f32(f32(start) + f32(place * f32(end - start))) ** rho).concat(0);
    }
    case "exponential":
      return [...linspace(Math.log(most), Math.log(least), count)].map(Math.exp).concat(0);
    case "lu":
      throw new Error("k-diffusion has no Lu sigmas");
    case "beta":
      if (isA1111) return [...spacedSigmas(kind, most, least, count), 0];
      return [...comfySigmas("beta_timesteps", model, count), 0];
    case "ays":
      return [...(isA1111 ? alignedA1111Sigmas(count) : comfySigmas(kind, model, count)), 0];
    case "kl_optimal":
      // A1111's ends at the model's least level.
      if (isA1111) return comfySigmas(kind, model, count + 1);
      return [...comfySigmas(kind, model, count), 0];
    default:
      return [...comfySigmas(kind, model, count), 0];
  }
}
