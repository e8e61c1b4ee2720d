/**
 * DEIS with the noise as a polynomial in time ("tab") through the last three outputs, where time is
 * that of a variance-preserving process with linear betas. Equal to ComfyUI's sample_deis, with its
 * sums of 10,000 points for the integrals.
 *
 * Source: arXiv 2204.13902.
 */
import { update } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import { derivativeAt, levelsOf } from "./levels.ts";
import type { MakeOptions, StepCoefficients, Steps } from "./types.ts";

const orderMax = 3;
const pointCount = 10_000;

export function tabulated(config: SchedulerConfig, options: MakeOptions): Steps {
  const { sigmas, timesteps, initNoiseSigma } = levelsOf(config, options);
  const times = Array.from(sigmas, timeOf);
  const steps = Array.from(timesteps, (timestep, i): StepCoefficients => {
    const order = sigmas[i + 1] === 0 ? 1 : Math.min(orderMax, i + 1);
    const nodes = Array.from({ length: order }, (_, k) => times[i - k]!);
    const width = sigmas[i + 1]! - sigmas[i]!;
    const modelOutputs = order === 1 ? [width] : integrals(nodes, times[i]!, times[i + 1]!);
    return {
      ...derivativeAt(config, sigmas[i]!, timestep),
      latent: update({ sample: 1, modelOutputs }),
      auxiliary: null,
    };
  });
  return { steps, timesteps, sigmas, initNoiseSigma };
}

// --- internal ---

/** The process: log(sigma² + 1) = growth·t²/2 + start·t, between its own least and largest. */
const [logLeast, logMost] = [Math.log(0.002 ** 2 + 1), Math.log(80 ** 2 + 1)];
const timeLeast = 1e-3;
const growth = (2 * (logLeast / timeLeast - logMost)) / (timeLeast - 1);
const start = logMost - growth / 2;

function timeOf(sigma: number): number {
  return (Math.sqrt(start ** 2 + 2 * growth * Math.log(sigma * sigma + 1)) - start) / growth;
}

/** dsigma/dt. */
function speed(time: number): number {
  const log = (growth * time * time) / 2 + start * time;
  return ((growth * time + start) * Math.exp(log)) / (2 * Math.sqrt(Math.expm1(log)));
}

/** Of the Lagrange polynomials of `nodes` over sigma, both ends of the interval included. */
function integrals(nodes: readonly number[], from: number, to: number): number[] {
  const sums = nodes.map(() => 0);
  for (let point = 0; point < pointCount; point++) {
    const time = from + ((to - from) * point) / (pointCount - 1);
    const weight = (speed(time) * (to - from)) / pointCount;
    for (const [j, node] of nodes.entries()) {
      let product = weight;
      for (const [k, other] of nodes.entries()) {
        if (k !== j) product *= (time - other) / (node - other);
      }
      sums[j] = sums[j]! + product;
    }
  }
  return sums;
}
