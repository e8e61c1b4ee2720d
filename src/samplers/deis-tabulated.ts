/**
 * DEIS with the noise as a polynomial in time ("tab") through the last three outputs, where time is
 * that of a variance-preserving process with linear betas. Equal to ComfyUI's sample_deis, whose
 * integrals are sums of 10,000 points; what these are beside the integral is added here.
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
    const modelOutputs = order === 1 ? [width] : integrals(nodes, sigmas[i]!, sigmas[i + 1]!);
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

/** The same over sigma: of the Lagrange polynomials of `nodes` in time, from the first node on. */
function integrals(nodes: readonly number[], from: number, to: number): number[] {
  return nodes.map((node, j) => {
    const others = nodes.filter((_, k) => k !== j);
    const polynomial = (time: number) =>
      others.reduce((product, other) => (product * (time - other)) / (node - other), 1);
    const exact = simpson((sigma) => polynomial(timeOf(sigma)), from, to);
    // A sum over both ends, of pointCount terms for one interval less.
    const [start, end] = [timeOf(from), timeOf(to)];
    const ends = (polynomial(start) * speed(start) + polynomial(end) * speed(end)) / 2;
    return exact + ((end - start) * ends - exact) / pointCount;
  });
}

function simpson(of: (x: number) => number, from: number, to: number): number {
  const intervals = 128;
  const width = (to - from) / intervals;
  let sum = of(from) + of(to);
  for (let i = 1; i < intervals; i++) sum += (i % 2 === 1 ? 4 : 2) * of(from + i * width);
  return (sum * width) / 3;
}
