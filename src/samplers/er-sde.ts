/**
 * ER-SDE: the reverse-time SDE with a noise scale of its own, integrated with up to the third order
 * in the last predictions. Equal to ComfyUI's sample_er_sde, with its sums of 200 points for the
 * integrals.
 *
 * Source: arXiv 2309.06169.
 */
import { update } from "./coefficients.ts";
import { denoisedAt, levelsOf } from "./levels.ts";
import type { Sampler, StepCoefficients } from "./types.ts";

const pointCount = 200;

export const erSde: Sampler = {
  follows: ["sigmas", "timestepSpacing"],
  hasKForm: true,
  make(config, options) {
    const { sigmas, timesteps, initNoiseSigma } = levelsOf(config, options);
    const steps = Array.from(timesteps, (timestep, i): StepCoefficients => {
      const [from, to] = [sigmas[i]!, sigmas[i + 1]!];
      const ratio = scaled(to) / scaled(from);
      const variance = to * to - (from * ratio) ** 2;
      const latent =
        to === 0
          ? { modelOutputs: [1] }
          : {
              sample: ratio,
              modelOutputs: weights(sigmas.subarray(Math.max(0, i - 2), i + 1).toReversed(), to),
              noise: Math.sqrt(Math.max(0, variance)),
            };
      return {
        ...denoisedAt(config, from, timestep),
        latent: update(latent),
        auxiliary: null,
        samplesNoise: to > 0,
      };
    });
    return { steps, timesteps, sigmas, initNoiseSigma };
  },
};

// --- internal ---

/** The scale of the noise that is added, at a noise level. */
const scaled = (sigma: number) => sigma * (Math.exp(sigma ** 0.3) + 10);

/** Of the predictions at `levels`, the newest first, in a step to `to`. */
function weights(levels: Float32Array, to: number): number[] {
  const [from, last, older] = levels as unknown as [number, number?, number?];
  const first = 1 - scaled(to) / scaled(from);
  if (last === undefined) return [first];
  const width = to - from;
  const points = Array.from({ length: pointCount }, (_, i) => to - (i * width) / pointCount);
  const integral = (of: (point: number) => number) =>
    points.reduce((sum, point) => sum + of(point) / scaled(point), 0) * (-width / pointCount);
  const slope = (width + integral(() => 1) * scaled(to)) / (from - last);
  if (older === undefined) return [first + slope, -slope];
  const curvature = width ** 2 / 2 + integral((point) => point - from) * scaled(to);
  // Of the difference of the last two slopes.
  const change = curvature / ((from - older) / 2);
  const [newer, old] = [change / (from - last), change / (last - older)];
  return [first + slope + newer, -slope - newer - old, old];
}
