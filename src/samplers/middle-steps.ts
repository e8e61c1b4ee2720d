/**
 * Steps of two evaluations, at a level and at one between it and the next, where the second starts
 * from the latent of the first again. Model outputs are converted to clean latents.
 */
import { update } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import type { Levels } from "./k-levels.ts";
import { denoisedAt } from "./levels.ts";
import type { StepCoefficients, Steps, Update } from "./types.ts";

type Noise = Partial<Pick<StepCoefficients, "samplesNoise" | "noiseFrom" | "noiseTo">>;

export class MiddleSteps {
  readonly #steps: StepCoefficients[] = [];
  readonly #visited: number[] = [];

  constructor(
    readonly config: SchedulerConfig,
    readonly levels: Levels,
  ) {}

  /** The evaluation at level `index`, whose latent is kept in the auxiliary register. */
  start(index: number, latent: Update, noise: Noise = {}, auxiliary = update({ sample: 1 })): void {
    const sigma = this.levels.sigmas[index]!;
    this.#evaluate(sigma, this.levels.timesteps[index]!, { latent, auxiliary, ...noise });
  }

  /** The evaluation at another level, to which the latent has come. */
  finish(sigma: number, step: Noise & { latent: Update; auxiliary?: Update }): void {
    this.#evaluate(sigma, this.levels.timestepOf(sigma), { auxiliary: null, ...step });
  }

  /** The evaluation at level `index` whose prediction is the next latent. */
  end(index: number): void {
    this.start(index, update({ modelOutputs: [1] }));
  }

  whole(): Steps {
    return {
      steps: this.#steps,
      timesteps: Float32Array.from(this.#steps, ({ timestep }) => timestep),
      sigmas: Float32Array.of(...this.#visited, this.levels.sigmas.at(-1)!),
      initNoiseSigma: this.levels.initNoiseSigma,
    };
  }

  #evaluate(
    sigma: number,
    timestep: number,
    step: Noise & Pick<StepCoefficients, "latent" | "auxiliary">,
  ): void {
    this.#visited.push(sigma);
    this.#steps.push({ ...denoisedAt(this.config, sigma, timestep), ...step });
  }
}
