/**
 * ComfyUI's schedules: noise levels of whole or interpolated training timesteps, and lists of
 * noise levels that were searched for. They differ from diffusers' spacings of the same purpose in
 * rounding, in interpolation (of log sigma) and in the first level, always the largest.
 *
 * Sources: ComfyUI comfy/samplers.py and comfy_extras/nodes_align_your_steps.py; beta: arXiv
 * 2407.12173; Align Your Steps: arXiv 2404.14507; kl_optimal: the same, section 3.1.
 */
import { linspace } from "./betas.ts";
import type { KModel } from "./k-model.ts";
import type { ComfyKind } from "./names.ts";
import { betaQuantile, ramp } from "./sigma-kinds.ts";

const f32 = Math.fround;

/**
 * Noise levels above 0 of steps, falling; 0 follows. ddim_uniform may have more than `count` of
 * them and beta_timesteps fewer, as in ComfyUI. `model` is the distilled one for lcm.
 */
export function comfySigmas(kind: ComfyKind, model: KModel, count: number): number[] {
  const { sigmas: table } = model;
  const size = table.length;
  const [least, most] = [table[0]!, table[size - 1]!];
  const indices = Array.from({ length: count }, (_, i) => i);
  switch (kind) {
    case "sgm_uniform":
    case "lcm": {
      const [start, end] = [model.timestepOf(most), model.timestepOf(least)];
      return [...linspace(start, end, count + 1).subarray(0, -1)].map(model.sigmaAt);
    }
    case "simple":
      return indices.map((i) => table[size - 1 - Math.trunc(i * (size / count))]!);
    case "ddim_uniform": {
      const stride = Math.max(1, Math.floor(size / count));
      const places = Array.from({ length: Math.ceil((size - 1) / stride) }, (_, i) => i);
      return places.map((i) => table[1 + i * stride]!).reverse();
    }
    case "beta_timesteps": {
      const places = indices.map((i) => betaQuantile(1 - i / count) * (size - 1));
      // The reference's quantile of a half is a little above it, which rounds up.
      return [...new Set(places.map((place) => Math.floor(place + 0.5 + 1e-9)))].map(
        (i) => table[i]!,
      );
    }
    case "linear_quadratic":
      return indices.map((i) => most * linearQuadratic(i, count));
    case "kl_optimal": {
      // In f32 as there: near a right angle the tangent is what rounding makes of it.
      const [start, end] = [f32(Math.atan(most)), f32(Math.atan(least))];
      return ramp(count)
        .map(f32)
        .map((place) => Math.tan(f32(f32(place * end) + f32(f32(1 - place) * start))));
    }
    case "ays":
      return indices.map((i) => alignedSigma(alignedSigmas, i / count));
  }
}

/** Align Your Steps as A1111 has it: the least level is a step too. */
export function alignedA1111Sigmas(count: number): number[] {
  return ramp(count).map((place) => alignedSigma(alignedA1111, place));
}

// --- internal ---

/** Of Align Your Steps for SDXL and ten steps; the last stands for 0. */
const alignedSigmas = [
  14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141, 0.5550693289,
  0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582,
];

/** As the authors' page and A1111 round them. */
const alignedA1111 = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.38, 0.234, 0.113, 0.029];

/** Interpolated in log sigma; `place` is 0 at the first one. */
function alignedSigma(table: readonly number[], place: number): number {
  // Counted from the last one, as the reference does.
  const position = (1 - place) * (table.length - 1);
  const low = Math.min(Math.floor(position), table.length - 2);
  const logAt = (index: number) => Math.log(table[table.length - 1 - index]!);
  return Math.exp(logAt(low) + (position - low) * (logAt(low + 1) - logAt(low)));
}

/** Falls by 0.025 in the first half of the steps, in a parabola in the second. */
function linearQuadratic(index: number, count: number): number {
  if (count === 1) return 1;
  const threshold = 0.025;
  const linear = Math.floor(count / 2);
  if (index < linear) return 1 - (index * threshold) / linear;
  const quadratic = count - linear;
  const rest = linear - threshold * count;
  const square = rest / (linear * quadratic ** 2);
  const slope = threshold / linear - (2 * rest) / quadratic ** 2;
  return 1 - (square * index ** 2 + slope * index + square * linear ** 2);
}
