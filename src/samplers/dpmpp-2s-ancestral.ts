/**
 * Ancestral DPM-Solver++(2S): the prediction at the (geometric) middle of the step takes the whole
 * of it, then fresh noise is added up to the next level. Two evaluations per step, one in the last.
 * Equal to k-diffusion's sample_dpmpp_2s_ancestral.
 *
 * Source: arXiv 2211.01095, algorithm 1.
 */
import { update } from "./coefficients.ts";
import { ancestralStep, levelsOf, middleOf } from "./levels.ts";
import { MiddleSteps } from "./middle-steps.ts";
import type { Sampler } from "./types.ts";

export const dpmpp2sAncestral: Sampler = {
  follows: ["sigmas", "timestepSpacing", "eta"],
  hasKForm: true,
  make(config, options) {
    const levels = levelsOf(config, options);
    const { sigmas } = levels;
    const steps = new MiddleSteps(config, levels);
    for (let i = 0; i + 1 < sigmas.length; i++) {
      const [from, to] = [sigmas[i]!, sigmas[i + 1]!];
      const { down, up } = ancestralStep(from, to, options);
      if (down === 0) {
        steps.end(i);
        continue;
      }
      const middle = middleOf(from, down, options.flavour);
      steps.start(i, update({ sample: middle / from, modelOutputs: [1 - middle / from] }));
      const latent = { auxiliary: down / from, modelOutputs: [1 - down / from], noise: up };
      steps.finish(middle, { latent: update(latent), samplesNoise: true });
    }
    return steps.whole();
  },
};
