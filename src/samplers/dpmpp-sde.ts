/**
 * DPM-Solver++ with noise: a step to the (geometric) middle with noise of its own, then the
 * prediction there takes the whole of it with the noise of the whole. Two evaluations per step, one
 * in the last. Equal to k-diffusion's sample_dpmpp_sde with r = 1/2.
 *
 * Source: arXiv 2211.01095, section 5.
 */
import { update } from "./coefficients.ts";
import { ancestralStep, levelsOf, middleOf } from "./levels.ts";
import { MiddleSteps } from "./middle-steps.ts";
import type { Flavour } from "./names.ts";
import type { Sampler } from "./types.ts";

export const dpmppSde: Sampler = {
  follows: ["sigmas", "timestepSpacing", "eta"],
  hasKForm: true,
  isBrownian: true,
  make(config, options) {
    const levels = levelsOf(config, options);
    const { sigmas } = levels;
    const { flavour } = options;
    const samplesNoise = options.eta !== 0;
    const steps = new MiddleSteps(config, levels);
    for (let i = 0; i + 1 < sigmas.length; i++) {
      const [from, to] = [sigmas[i]!, sigmas[i + 1]!];
      if (to === 0) {
        steps.end(i);
        continue;
      }
      const middle = middleOf(from, to, flavour);
      const half = ancestralStep(from, middle, options);
      const whole = ancestralStep(from, to, options);
      const [toHalf, toWhole] = [half.down / from, whole.down / from];
      const noise = noiseLevels(from, to, flavour);
      steps.start(i, update({ sample: toHalf, modelOutputs: [1 - toHalf], noise: half.up }), {
        samplesNoise,
        noiseFrom: noise.from,
        noiseTo: noise.middle,
      });
      steps.finish(middle, {
        latent: update({ auxiliary: toWhole, modelOutputs: [1 - toWhole], noise: whole.up }),
        samplesNoise,
        noiseFrom: noise.from,
        noiseTo: noise.to,
      });
    }
    return steps.whole();
  },
};

// --- internal ---

/**
 * Ends of the noise of a step and of its half, rounded as the tools round: a Brownian path resolves
 * levels to 6 digits, about as much as f32 does.
 */
function noiseLevels(from: number, to: number, flavour: Flavour) {
  const { fround } = Math;
  const [logFrom, logTo] = [fround(Math.log(from)), fround(Math.log(to))];
  const half = fround(fround(logTo - logFrom) / 2);
  const middle = fround(Math.exp(fround(logFrom + half)));
  if (flavour !== "a1111") return { from, middle, to };
  // k-diffusion goes to logarithms and back.
  return { from: fround(Math.exp(logFrom)), middle, to: fround(Math.exp(logTo)) };
}
