/**
 * SEEDS-2: an exponential integrator of two evaluations whose noise in the second half goes on from
 * that of the first. Equal to ComfyUI's sample_seeds_2 with r = 1/2.
 *
 * Source: arXiv 2305.14267.
 */
import { update } from "./coefficients.ts";
import { levelsOf, middleOf } from "./levels.ts";
import { MiddleSteps } from "./middle-steps.ts";
import type { Sampler } from "./types.ts";

export const seeds2: Sampler = {
  follows: ["sigmas", "timestepSpacing", "eta"],
  hasKForm: true,
  make(config, options) {
    const levels = levelsOf(config, options);
    const { sigmas } = levels;
    const { eta = 1 } = options;
    const steps = new MiddleSteps(config, levels);
    for (let i = 0; i + 1 < sigmas.length; i++) {
      const [from, to] = [sigmas[i]!, sigmas[i + 1]!];
      if (to === 0) {
        steps.end(i);
        continue;
      }
      const half = Math.log(from / to) / 2;
      const middle = middleOf(from, to, options.flavour);
      const fresh = Math.sqrt(-Math.expm1(-2 * half * eta));
      const first = {
        sample: (middle / from) * Math.exp(-half * eta),
        modelOutputs: [-Math.expm1(-half * (eta + 1))],
        noise: fresh * middle,
      };
      // What the second half starts from: the latent and the noise of the first half.
      const kept = {
        sample: (to / from) * Math.exp(-2 * half * eta),
        noise: fresh * Math.exp(-half * eta) * to,
      };
      const samplesNoise = eta > 0;
      steps.start(i, update(first), { samplesNoise }, update(kept));
      const modelOutputs = [-Math.expm1(-2 * half * (eta + 1))];
      const latent = update({ auxiliary: 1, modelOutputs, noise: fresh * to });
      steps.finish(middle, { latent, samplesNoise });
    }
    return steps.whole();
  },
};
