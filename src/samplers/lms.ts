/**
 * Linear multistep (Adams-Bashforth on uneven steps): the polynomial through the last four
 * derivatives, integrated over the step. Equal to k-diffusion's sample_lms and to diffusers'
 * LMSDiscreteScheduler, whose Karras sigmas take no range from the config.
 */
import { update } from "./coefficients.ts";
import { derivativeAt, levelsOf } from "./levels.ts";
import type { Sampler, StepCoefficients } from "./types.ts";

const orderMax = 4;

export const lms: Sampler = {
  follows: ["sigmas", "timestepSpacing"],
  hasKForm: true,
  make(config, options) {
    const hasOwnRange = options.sigmas === "karras";
    const range = hasOwnRange ? { ...config, sigmaMin: null, sigmaMax: null } : config;
    const { sigmas, timesteps, initNoiseSigma } = levelsOf(range, options);
    // ComfyUI's newer code takes the prediction as it is where no noise is left.
    const endsLow = options.flavour === "kdiffusion";
    const steps = Array.from(timesteps, (timestep, i): StepCoefficients => {
      const [from, to] = [sigmas[i]!, sigmas[i + 1]!];
      const order = endsLow && to === 0 ? 1 : Math.min(i + 1, orderMax);
      const nodes = Array.from({ length: order }, (_, k) => sigmas[i - k]!);
      return {
        ...derivativeAt(config, from, timestep),
        latent: update({ sample: 1, modelOutputs: weights(nodes, from, to) }),
        auxiliary: null,
      };
    });
    return { steps, timesteps, sigmas, initNoiseSigma };
  },
};

// --- internal ---

/** Integrals from `from` to `to` of the Lagrange polynomials of `nodes`. */
function weights(nodes: readonly number[], from: number, to: number): number[] {
  const half = (to - from) / 2;
  // Gauss and Legendre's two points integrate polynomials up to the third degree exactly.
  const points = [-1, 1].map((sign) => from + half + (sign * half) / Math.sqrt(3));
  return nodes.map((node, k) => {
    const polynomial = (x: number) =>
      nodes.reduce(
        (product, other, j) => (j === k ? product : (product * (x - other)) / (node - other)),
        1,
      );
    return half * points.reduce((sum, x) => sum + polynomial(x), 0);
  });
}
