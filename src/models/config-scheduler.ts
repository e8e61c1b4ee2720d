/**
 * The scheduler_config.json of a diffusers folder. A model names one sampler class, but any sampler
 * may be asked for: `null` means that the file leaves the key out and the sampler's own default
 * holds. What the model was trained to predict cannot be asked for: another parametrisation than
 * that of discrete betas is refused here.
 */
import type { SchedulerConfig, SolverConfig } from "../samplers/config.ts";
import { predictionTypes, type SigmaKind, timestepSpacings } from "../samplers/names.ts";
import {
  aNumber,
  ConfigReader,
  finiteNumber,
  flag,
  listOf,
  oneOf,
  positiveInteger,
  positiveNumber,
  text,
  wholeNumber,
  word,
} from "./config-reader.ts";

export type { SchedulerConfig } from "../samplers/config.ts";
export type { PredictionType } from "../samplers/names.ts";

const spacings = oneOf(timestepSpacings);
const predictions = oneOf(predictionTypes);
const betaSchedules = oneOf(["linear", "scaled_linear", "squaredcos_cap_v2"]);

/**
 * Reads the scheduler's config; `indexClass` is the class that model_index.json names. Throws
 * "bad-model" with the file and the key.
 */
export function parseSchedulerConfig(
  path: string,
  json: unknown,
  indexClass: string | null = null,
): SchedulerConfig {
  const reader = new ConfigReader(path, json);
  const ownClass = reader.optional("_class_name", text, null);
  const className = indexClass ?? ownClass ?? reader.required("_class_name", text);
  // Either file may have been edited: the settings of the other class would be read as betas.
  checkParametrisation(reader, [className, ownClass ?? className]);
  const isOn = (key: string) => reader.isOn(key, false);
  reader.refuseNull("timestep_spacing");
  const config: SchedulerConfig = {
    className,
    betaStart: reader.optional("beta_start", positiveNumber, 0.0001),
    betaEnd: reader.optional("beta_end", positiveNumber, 0.02),
    betaSchedule: reader.optional("beta_schedule", betaSchedules, "linear"),
    trainedBetas: reader.optional("trained_betas", listOf(finiteNumber), null),
    trainTimesteps: reader.optional("num_train_timesteps", positiveInteger, 1000),
    predictionType: reader.optional("prediction_type", predictions, "epsilon"),
    timestepSpacing: reader.optional("timestep_spacing", spacings, null),
    stepsOffset: reader.optional("steps_offset", wholeNumber, 0),
    sigmaKind: sigmaKindOf(reader),
    sigmaMin: reader.optional("sigma_min", positiveNumber, null),
    sigmaMax: reader.optional("sigma_max", positiveNumber, null),
    finalSigmasType: reader.optional("final_sigmas_type", oneOf(["zero", "sigma_min"]), "zero"),
    interpolationType: reader.optional("interpolation_type", text, "linear"),
    timestepType: reader.optional("timestep_type", text, "discrete"),
    setAlphaToOne: reader.isOn("set_alpha_to_one", null),
    clipSample: reader.optional("clip_sample", flag, null),
    rescaleBetasZeroSnr: isOn("rescale_betas_zero_snr"),
    thresholding: isOn("thresholding"),
    varianceType: reader.optional("variance_type", text, null),
    solver: solverOf(reader),
  };
  checkBetas(reader, config);
  return config;
}

// --- internal ---

/**
 * Classes whose models have other noise levels and another scaling of input and output: flow
 * matching, EDM, consistency models and continuous time.
 */
const otherParametrisations =
  /^(EDM|FlowMatch|FlowMap|Cosine|CMStochastic|ScoreSde|SCM|IPNDM|UnCLIP|CogVideoX|DDPMWuerstchen)/;

function checkParametrisation(reader: ConfigReader, classNames: readonly string[]): void {
  const refuse = (what: string) =>
    reader.fail(
      `${what} is a parametrisation that is not supported: no other scheduler can follow what ` +
        "such a model predicts",
    );
  const other = classNames.find((name) => otherParametrisations.test(name));
  if (other !== undefined) refuse(`that of ${word(other)}`);
  if (reader.isOn("use_flow_sigmas", false)) refuse("flow matching (use_flow_sigmas)");
  const variance = reader.optional("variance_type", text, null) ?? "";
  if (variance.startsWith("learned"))
    refuse(`a learned variance (variance_type "${word(variance)}")`);
}

function sigmaKindOf(reader: ConfigReader): SigmaKind {
  const asked = (["karras", "exponential", "beta"] as const).filter((kind) =>
    reader.isOn(`use_${kind}_sigmas`, false),
  );
  if (asked.length > 1) {
    reader.fail(`use_${asked[0]}_sigmas and use_${asked[1]}_sigmas contradict each other`);
  }
  return asked[0] ?? (reader.isOn("use_lu_lambdas", false) ? "lu" : "normal");
}

function solverOf(reader: ConfigReader): SolverConfig {
  return {
    order: reader.optional("solver_order", positiveInteger, null),
    algorithm: reader.optional("algorithm_type", text, null),
    type: reader.optional("solver_type", text, null),
    lowerOrderFinal: reader.isOn("lower_order_final", null),
    eulerAtFinal: reader.isOn("euler_at_final", false),
    lambdaMinClipped: reader.optional("lambda_min_clipped", aNumber, Number.NEGATIVE_INFINITY),
    predictX0: reader.isOn("predict_x0", true),
    disableCorrector: reader.optional("disable_corrector", listOf(wholeNumber), null) ?? [],
    hasOtherPredictor: reader.keys().includes("solver_p") && !reader.isNull("solver_p"),
    skipPrkSteps: reader.isOn("skip_prk_steps", null),
    originalSteps: reader.optional("original_inference_steps", positiveInteger, 50),
    timestepScaling: reader.optional("timestep_scaling", positiveNumber, 10),
  };
}

function checkBetas(reader: ConfigReader, config: SchedulerConfig): void {
  const { betaStart, betaEnd, trainedBetas, trainTimesteps } = config;
  if (trainTimesteps < 2) reader.fail("num_train_timesteps is 1, but at least 2 are needed");
  if (betaStart > betaEnd || betaEnd >= 1) {
    reader.fail(`beta_start ${betaStart} to beta_end ${betaEnd} must rise and stay below 1`);
  }
  if (!trainedBetas) return;
  if (trainedBetas.length !== trainTimesteps) {
    reader.fail(`trained_betas has ${trainedBetas.length} entries, not ${trainTimesteps}`);
  }
  if (trainedBetas.some((beta) => beta <= 0 || beta >= 1)) {
    reader.fail("trained_betas has an entry that is not between 0 and 1");
  }
}
