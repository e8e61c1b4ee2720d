/**
 * The noise levels of training: the cumulative product of (1 - beta), in f32 with torch's
 * roundings. A change in the order of operations here changes the last bit of every sigma.
 *
 * Source: diffusers `EulerDiscreteScheduler.__init__`; zero terminal SNR: arXiv 2305.08891,
 * algorithm 1.
 */
import type { SchedulerConfig } from "./config.ts";

const f32 = Math.fround;

/**
 * alphas_cumprod: one f32 per training timestep, falling. With zero terminal SNR the last one is 0
 * or close to it: samplers that divide by it must replace it.
 */
export function alphasCumprod(config: SchedulerConfig): Float32Array {
  const betas = trainingBetas(config);
  return cumulativeProduct(config.rescaleBetasZeroSnr ? rescaleZeroTerminalSnr(betas) : betas);
}

/** The same in f64 and without zero terminal SNR, as ComfyUI computes it. */
export function exactAlphasCumprod(config: SchedulerConfig): Float64Array {
  const { betaStart, betaEnd, trainTimesteps: count } = config;
  const [start, end] = [Math.sqrt(betaStart), Math.sqrt(betaEnd)];
  const betas =
    config.betaSchedule === "scaled_linear" && !config.trainedBetas
      ? Float64Array.from(
          { length: count },
          (_, i) => (start + (i * (end - start)) / (count - 1)) ** 2,
        )
      : Float64Array.from(trainingBetas(config));
  let product = 1;
  return betas.map((beta) => {
    product *= 1 - beta;
    return product;
  });
}

/** Of a timestep, between two by their distance. */
export function alphaBarAt(alphaBars: ArrayLike<number>, timestep: number): number {
  const last = alphaBars.length - 1;
  const index = Math.min(last, Math.max(0, timestep));
  const [below, above] = [Math.floor(index), Math.ceil(index)].map((i) => alphaBars[i]!);
  return below! + (index - Math.floor(index)) * (above! - below!);
}

/** torch.linspace in f32: from both ends to the middle, product and sum rounded once (fused). */
export function linspace(startValue: number, endValue: number, count: number): Float32Array {
  const start = f32(startValue);
  const end = f32(endValue);
  const step = count === 1 ? 0 : f32(f32(end - start) / (count - 1));
  const halfway = Math.floor(count / 2);
  return Float32Array.from({ length: count }, (_, i) =>
    i < halfway || count === 1 ? start + step * i : end - step * (count - i - 1),
  );
}

// --- internal ---

function trainingBetas(config: SchedulerConfig): Float32Array {
  const { betaStart, betaEnd, trainTimesteps } = config;
  if (config.trainedBetas) return Float32Array.from(config.trainedBetas);
  switch (config.betaSchedule) {
    case "linear":
      return linspace(betaStart, betaEnd, trainTimesteps);
    case "scaled_linear":
      return linspace(Math.sqrt(betaStart), Math.sqrt(betaEnd), trainTimesteps).map((x) => x * x);
    case "squaredcos_cap_v2":
      return cosineBetas(trainTimesteps);
  }
}

/** The cosine schedule of arXiv 2102.09672, each beta capped at 0.999. */
function cosineBetas(count: number): Float32Array {
  const alphaBar = (t: number) => Math.cos((((t + 0.008) / 1.008) * Math.PI) / 2) ** 2;
  return Float32Array.from({ length: count }, (_, i) =>
    Math.min(1 - alphaBar((i + 1) / count) / alphaBar(i / count), 0.999),
  );
}

/** torch.cumprod of (1 - beta) on a CPU: accumulates in double and rounds each output. */
function cumulativeProduct(betas: Float32Array): Float32Array {
  let product = 1;
  return betas.map((beta) => {
    product *= f32(1 - beta);
    return product;
  });
}

function rescaleZeroTerminalSnr(betas: Float32Array): Float32Array {
  const roots = cumulativeProduct(betas).map((alphaBar) => Math.sqrt(alphaBar));
  const first = roots[0]!;
  const last = roots[roots.length - 1]!;
  const scale = f32(first / f32(first - last));
  const alphaBars = roots.map((root) => f32(f32(root - last) * scale) ** 2);
  return alphaBars.map((alphaBar, i) => 1 - f32(i === 0 ? alphaBar : alphaBar / alphaBars[i - 1]!));
}
