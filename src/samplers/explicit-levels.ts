/**
 * Noise levels and timesteps of a run that do not come from a spacing of diffusers: lists that the
 * user gives, and ComfyUI's schedules.
 *
 * Source: diffusers `EulerDiscreteScheduler.set_timesteps(timesteps=, sigmas=)`.
 */
import { comfySigmas } from "./comfy-sigmas.ts";
import type { SchedulerConfig } from "./config.ts";
import { kModel } from "./k-model.ts";
import { comfyKinds } from "./names.ts";
import { interpolate, timestepOfSigma } from "./sigma-table.ts";
import type { SigmaChoice } from "./types.ts";

interface ExplicitLevels {
  timesteps: number[];
  /** Of each timestep. */
  sigmas: number[];
  /** After the last step; undefined where the sampler decides. */
  final?: number;
}

/** Null where `choice` is a spacing of diffusers. */
export function explicitLevels(
  choice: SigmaChoice,
  config: SchedulerConfig,
  table: Float32Array,
  stepCount: number,
): ExplicitLevels | null {
  if (typeof choice === "object" && "timesteps" in choice) {
    const timesteps = [...choice.timesteps];
    return { timesteps, sigmas: timesteps.map((timestep) => interpolate(table, timestep)) };
  }
  if (typeof choice === "object") {
    const sigmas = choice.sigmas.slice(0, -1);
    return { timesteps: sigmas.map(timestepOfSigma(table)), sigmas, final: choice.sigmas.at(-1)! };
  }
  const kind = comfyKinds.find((name) => name === choice);
  if (kind === undefined) return null;
  const isDistilled = kind === "lcm";
  const model = kModel(config, { flavour: "kdiffusion", rounding: "auto", isDistilled });
  const sigmas = comfySigmas(kind, model, stepCount);
  return { sigmas, timesteps: sigmas.map(model.timestepOf) };
}
