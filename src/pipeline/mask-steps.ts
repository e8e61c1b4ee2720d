/**
 * Where each evaluation of the model mixes in what a mask keeps of the image, as the tool does it.
 *
 * Sources: diffusers StableDiffusionXLInpaintPipeline; ComfyUI comfy/samplers.py
 * (KSamplerX0Inpaint); AUTOMATIC1111 modules/sd_samplers_cfg_denoiser.py, processing.py (sample).
 */
import * as abi from "../native/abi.ts";
import { dataMix } from "../samplers/coefficients.ts";
import type { SchedulerConfig } from "../samplers/config.ts";
import type { NoiseLevel } from "../samplers/types.ts";
import { isOfTimesteps, type Schedule } from "../schedule.ts";
import { type Compat, flavourOf } from "../settings/compat.ts";

type MaskSchedule = Pick<Schedule, "name" | "steps" | "levels">;

/** One per evaluation; none where the model alone reads the mask. */
export function maskStepsOf(
  schedule: MaskSchedule,
  { compat, readsMask, config }: { compat: Compat; readsMask: boolean; config: SchedulerConfig },
): abi.MaskStep[] {
  if (compat === "diffusers") return readsMask ? [] : ofDiffusers(schedule);
  if (compat === "comfyui") return ofComfyUi(schedule, config);
  const isOwn = isOfTimesteps(schedule.name, flavourOf(compat));
  const made = isOwn ? ofA1111Timesteps(schedule) : ofA1111(schedule, config);
  // A run that another model goes on with has the level after its last step.
  const isWhole = schedule.levels.length === schedule.steps.length;
  return isWhole ? made.map((step, i) => (i < made.length - 1 ? step : ending(step))) : made;
}

export function maskStepBytes(steps: readonly abi.MaskStep[]): Uint8Array {
  const bytes = new Uint8Array(steps.length * abi.sizeOfMaskStep);
  const view = new DataView(bytes.buffer);
  for (const [i, step] of steps.entries()) abi.writeMaskStep(view, i * abi.sizeOfMaskStep, step);
  return bytes;
}

// --- internal ---

const clean: NoiseLevel = { signal: 1, noise: 0 };

const nothing: abi.MaskStep = {
  ...{ blendsInput: false, input: clean },
  ...{ blendsClean: false, cleanFromSample: 1, cleanFromOutput: 1 },
  ...{ blendsLatent: false, latent: clean },
};

/** The latent after each step, with the noise of the next level. */
function ofDiffusers({ steps, levels }: MaskSchedule): abi.MaskStep[] {
  const [, ...later] = levels;
  return steps.map((_, i) => ({ ...nothing, blendsLatent: true, latent: later[i] ?? clean }));
}

/** What the model reads, with the noise of its level, and what it predicts. */
function ofComfyUi(schedule: MaskSchedule, config: SchedulerConfig): abi.MaskStep[] {
  return ofA1111(schedule, config).map((step, i) => ({
    ...step,
    ...{ blendsInput: true, input: schedule.levels[i]! },
  }));
}

/** What the model predicts. */
function ofA1111({ steps, levels }: MaskSchedule, config: SchedulerConfig): abi.MaskStep[] {
  return steps.map(({ inputScale }, i) => {
    const { signal, noise } = levels[i]!;
    const [alpha, sigma] = [signal * inputScale, noise * inputScale];
    const mix = dataMix(config.predictionType, { alpha, sigma, lambda: Math.log(alpha / sigma) });
    return {
      ...nothing,
      blendsClean: true,
      cleanFromSample: mix.outputFromSample * inputScale,
      cleanFromOutput: mix.outputFromModel,
    };
  });
}

/** What the model reads, without noise. */
function ofA1111Timesteps({ steps }: MaskSchedule): abi.MaskStep[] {
  return steps.map(({ inputScale }) => ({
    ...nothing,
    ...{ blendsInput: true, input: { signal: 1 / inputScale, noise: 0 } },
  }));
}

/** A1111 puts the image back at the end. */
function ending(step: abi.MaskStep): abi.MaskStep {
  return { ...step, blendsLatent: true, latent: clean };
}
