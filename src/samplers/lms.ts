/**
 * Linear multistep (Adams-Bashforth on uneven steps): the polynomial through the last four
 * derivatives, integrated over the step. Equal to diffusers' LMSDiscreteScheduler, whose Karras
 * sigmas take no range from the config.
 */
import { derivativeMix, update } from "./coefficients.ts";
import { sigmaSchedule } from "./sigmas.ts";
import type { Sampler, StepCoefficients } from "./types.ts";

const orderMax = 4;

export const lms: Sampler = {
  follows: ["sigmas", "timestepSpacing"],
  make(config, options) {
    const hasOwnRange = options.sigmas === "karras";
    const range = hasOwnRange ? { ...config, sigmaMin: null, sigmaMax: null } : config;
    const schedule = sigmaSchedule(range, {
      stepCount: options.stepCount,
      spacing: options.timestepSpacing ?? config.timestepSpacing ?? "linspace",
      kind: options.sigmas,
      finalSigma: "zero",
    });
    const { sigmas, timesteps } = schedule;
    const steps = Array.from(timesteps, (timestep, i): StepCoefficients => {
      const nodes = Array.from({ length: Math.min(i + 1, orderMax) }, (_, k) => sigmas[i - k]!);
      return {
        timestep,
        inputScale: 1 / Math.sqrt(sigmas[i]! ** 2 + 1),
        ...derivativeMix(config.predictionType, sigmas[i]!),
        latent: update({ sample: 1, modelOutputs: weights(nodes, sigmas[i]!, sigmas[i + 1]!) }),
        auxiliary: null,
        samplesNoise: false,
      };
    });
    return { ...schedule, steps };
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
