/**
 * The timesteps of A1111's DDIM, PLMS and UniPC: these count from 1 in even strides, stop at the
 * first one, and know no other spacing.
 *
 * Sources: AUTOMATIC1111 modules/sd_samplers_timesteps.py, modules/models/diffusion/uni_pc/
 * uni_pc.py (NoiseScheduleVP).
 */
import { BasedXLError } from "../errors.ts";
import { alphasCumprod } from "./betas.ts";
import { levelOfAlpha } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import { roundHalfEven } from "./spacing.ts";
import type { MakeOptions, NoiseLevel } from "./types.ts";

type RunOptions = Pick<MakeOptions, "stepCount" | "firstStep" | "startsFromImage">;

/** Timesteps of a run, and the level of the image that it starts from. */
interface A1111Run {
  /**
   * Falling. The run ends at the last one, which the model is not asked about: it visits a timestep
   * less than steps where these divide the model's.
   */
  timesteps: number[];
  startLevel: NoiseLevel | undefined;
}

/**
 * Of DDIM and PLMS. An image gets the noise of the timestep before the first one that the model is
 * asked about.
 */
export function a1111Timesteps(config: SchedulerConfig, options: RunOptions): A1111Run {
  const { timesteps, startLevel } = listed(config, options, 2);
  const firstStep = startLevel === undefined ? (options.firstStep ?? 0) : 0;
  return { timesteps: timesteps.slice(firstStep), startLevel };
}

/** Timesteps and noise levels of UniPC, whose time is continuous: as many as steps, and the end. */
export function a1111Times(
  config: SchedulerConfig,
  options: MakeOptions,
): { timesteps: Float32Array; sigmas: Float32Array; startLevel: NoiseLevel | undefined } {
  const alphas = alphasCumprod(config);
  const logs = alphas.map((alpha) => Math.log(alpha) / 2);
  const last = logs.length - 1;
  const { timesteps: own, startLevel } = listed(config, options, 1);
  const count = own.length;
  const start = startLevel === undefined ? last : own[0]!;
  const places = Array.from({ length: count + 1 }, (_, i) => start * (1 - i / count));
  const sigmas = places.map((place) => {
    const low = Math.min(Math.floor(place), last - 1);
    const alpha = Math.exp(logs[low]! + (place - low) * (logs[low + 1]! - logs[low]!));
    return Math.sqrt(1 - alpha * alpha) / alpha;
  });
  const isRounded = options.timestepRounding === "nearest";
  const visited = places.slice(0, -1).map((place) => (isRounded ? roundHalfEven(place) : place));
  return {
    timesteps: Float32Array.from(visited),
    sigmas: Float32Array.from(sigmas),
    startLevel,
  };
}

// --- internal ---

/** All, or with an image to start from those that are left. */
function listed(
  config: SchedulerConfig,
  { stepCount, firstStep = 0, startsFromImage = false }: RunOptions,
  countMin: number,
): A1111Run {
  const { trainTimesteps } = config;
  const stride = Math.floor(trainTimesteps / stepCount);
  const rising = Array.from({ length: Math.ceil(trainTimesteps / stride) }, (_, i) =>
    Math.min(i * stride + 1, trainTimesteps - 1),
  );
  const taken = startsFromImage ? stepCount - firstStep - 1 : rising.length;
  if (taken < countMin) {
    const few = startsFromImage ? "a step more at this strength" : `at least ${countMin} steps`;
    throw new BasedXLError("bad-option", `A1111's DDIM, PLMS and UniPC need ${few}.`);
  }
  const timesteps = rising.slice(0, taken).reverse();
  if (!startsFromImage) return { timesteps, startLevel: undefined };
  const { alpha, sigma } = levelOfAlpha(alphasCumprod(config)[rising[taken]!]!);
  return { timesteps, startLevel: { signal: alpha, noise: sigma } };
}
