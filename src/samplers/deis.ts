/**
 * DEIS: the noise as a polynomial in log sigma through the last outputs, integrated over the step
 * ("logrho"). Equal to diffusers' DEISMultistepScheduler, which never ends at sigma 0 and takes
 * other spacings' last sigma twice.
 *
 * Source: arXiv 2204.13902.
 */
import { BasedXLError, escaped } from "../errors.ts";
import { checkLinear } from "./clipping.ts";
import { levelOf, noiseMix, update } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import { tabulated } from "./deis-tabulated.ts";
import { orderOf } from "./dpm-solver.ts";
import { solverLevels } from "./solver-levels.ts";
import type { Sampler, StepCoefficients } from "./types.ts";

export const deis: Sampler = {
  follows: ["sigmas", "timestepSpacing"],
  hasKForm: true,
  make(config, options) {
    checkLinear("deis", config, { thresholding: true, clips: null });
    if (options.flavour !== "diffusers") return tabulated(config, options);
    checkNames(config);
    const { timesteps, sigmas } = solverLevels(config, {
      stepCount: options.stepCount,
      firstStep: options.firstStep,
      spacing: options.timestepSpacing ?? config.timestepSpacing ?? "linspace",
      kind: options.sigmas,
      final: options.sigmas === "normal" ? "table" : "repeated",
      rounds: true,
    });
    const levels = Array.from(sigmas, levelOf);
    const order = orderOf(config, 2);
    const count = timesteps.length;
    const { firstStep = 0 } = options;
    const isLowered = (config.solver.lowerOrderFinal ?? true) && firstStep + count < 15;
    const steps = Array.from(timesteps, (timestep, i): StepCoefficients => {
      const left = isLowered ? count - i : order;
      const nodes = Array.from({ length: Math.min(order, left, i + 1) }, (_, k) => sigmas[i - k]!);
      const { alpha } = levels[i + 1]!;
      const weights = integrals(nodes, sigmas[i]!, sigmas[i + 1]!);
      return {
        timestep,
        inputScale: 1,
        ...noiseMix(config.predictionType, levels[i]!),
        latent: update({
          sample: alpha / levels[i]!.alpha,
          modelOutputs: weights.map((weight) => alpha * weight),
        }),
        auxiliary: null,
        samplesNoise: false,
      };
    });
    return { steps, timesteps, sigmas, initNoiseSigma: 1 };
  },
};

// --- internal ---

/** Names of other classes mean the only algorithm that there is. */
function checkNames(config: SchedulerConfig): void {
  const { algorithm, type } = config.solver;
  const algorithms = [null, "deis", "dpmsolver", "dpmsolver++"];
  const types = [null, "logrho", "midpoint", "heun", "bh1", "bh2"];
  const refused = algorithms.includes(algorithm)
    ? !types.includes(type) && `solver_type "${escaped(type ?? "", 60)}"`
    : `algorithm_type "${escaped(algorithm ?? "", 60)}"`;
  if (!refused) return;
  throw new BasedXLError(
    "bad-model",
    `The model's scheduler_config.json asks for ${refused}, which is not supported; deis with ` +
      "logrho is; or name another scheduler.",
  );
}

/**
 * Integrals over sigma, from `from` to `to`, of the Lagrange polynomials in log sigma of `nodes`.
 */
function integrals(nodes: readonly number[], from: number, to: number): number[] {
  const logs = nodes.map(Math.log);
  return nodes.map((_, k) => {
    const others = logs.filter((_, j) => j !== k);
    const scale = others.reduce((product, log) => product / (logs[k]! - log), 1);
    return scale * (antiderivative(others, to) - antiderivative(others, from));
  });
}

/** Of the product of (log t - log) over `logs`, at t. */
function antiderivative(logs: readonly number[], t: number): number {
  const x = Math.log(t);
  const [a, b] = logs;
  if (a === undefined) return t;
  if (b === undefined) return t * (x - 1 - a);
  return t * (x * x - 2 * x + 2 - (a + b) * (x - 1) + a * b);
}
