/**
 * The timesteps of A1111's DDIM, PLMS and UniPC: these count from 1 in even strides, stop at the
 * first one, and know no other spacing.
 *
 * Sources: AUTOMATIC1111 modules/sd_samplers_timesteps.py, modules/models/diffusion/uni_pc/
 * uni_pc.py (NoiseScheduleVP).
 */
import { BasedXLError } from "../errors.ts";
import { alphasCumprod } from "./betas.ts";
import type { SchedulerConfig } from "./config.ts";
import { roundHalfEven } from "./spacing.ts";
import type { MakeOptions } from "./types.ts";

/**
 * Falling. The run ends at the last one, which the model is not asked about: it visits a timestep
 * less than steps where these divide the model's.
 */
export function a1111Timesteps({ trainTimesteps }: SchedulerConfig, stepCount: number): number[] {
  const stride = Math.floor(trainTimesteps / stepCount);
  const count = Math.ceil(trainTimesteps / stride);
  const timesteps = Array.from({ length: count }, (_, i) =>
    Math.min(i * stride + 1, trainTimesteps - 1),
  );
  if (count > 1) return timesteps.reverse();
  throw new BasedXLError("bad-option", "A1111's DDIM and PLMS need at least 2 steps, not 1.");
}

/** Timesteps and noise levels of UniPC, whose time is continuous: as many as steps, and the end. */
export function a1111Times(
  config: SchedulerConfig,
  { stepCount, timestepRounding }: MakeOptions,
): { timesteps: Float32Array; sigmas: Float32Array } {
  const alphas = alphasCumprod(config);
  const logs = alphas.map((alpha) => Math.log(alpha) / 2);
  const stride = Math.floor(config.trainTimesteps / stepCount);
  const count = Math.ceil(config.trainTimesteps / stride);
  const last = logs.length - 1;
  const places = Array.from({ length: count + 1 }, (_, i) => last * (1 - i / count));
  const sigmas = places.map((place) => {
    const low = Math.min(Math.floor(place), last - 1);
    const alpha = Math.exp(logs[low]! + (place - low) * (logs[low + 1]! - logs[low]!));
    return Math.sqrt(1 - alpha * alpha) / alpha;
  });
  const visited = places.slice(0, -1);
  return {
    timesteps: Float32Array.from(
      timestepRounding === "nearest" ? visited.map(roundHalfEven) : visited,
    ),
    sigmas: Float32Array.from(sigmas),
  };
}
