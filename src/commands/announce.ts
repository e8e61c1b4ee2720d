/**
 * What every run of images begins with: the options of the pipeline, the lines that say what will
 * be generated, and the wait for hashes.
 */
import { defaultHashWaitMs, type FileHashes } from "../metadata.ts";
import {
  embeddingLines,
  loraLines,
  type PlannedRequest,
  type PreparedPipeline,
  type PrepareOptions,
} from "../pipeline.ts";
import type { SampleOptions } from "../settings/options.ts";
import { asFlag } from "../settings/values.ts";
import type { Output } from "../terminal/output.ts";

/** The pipeline that the flags ask for, but for its first request. */
export function prepareOptionsOf(
  options: SampleOptions,
  output: Output,
  signal: AbortSignal,
): PrepareOptions {
  return {
    model: options.model,
    config: options.config,
    refiner: options.refiner,
    vae: options.vae,
    taesd: options.taesd,
    modelsDir: options.modelsDir,
    predictionType: options.predictionType,
    rescaleBetasZeroSnr: options.rescaleBetasZeroSnr,
    devices: options,
    threadCount: options.threadCount,
    naming: asFlag,
    onLine: output.log.info,
    onDownload: (state) => {
      if (output.showsProgress) output.progress.download(state);
    },
    signal,
  };
}

/** Says what will be generated or is planned, with which model and where. */
export function describe(
  prepared: PreparedPipeline,
  options: SampleOptions,
  { log }: Output,
): void {
  const { devices, machine, plan, vae } = prepared;
  log.info(describeModel(prepared, options));
  if (prepared.refiner !== null) log.info(describeRefiner(prepared.refiner, plan));
  if (vae !== null) log.debug(vae.note);
  if (prepared.model.taesd) log.debug(`TAESD: ${prepared.model.taesd.path}.`);
  if (devices.line !== null) log.info(devices.line);
  log.debug(`CPU: ${machine.cpuName}, ${machine.instructionSet}, ${machine.coreCount} cores.`);
  for (const line of loraLines(plan.loras)) log.info(line);
  for (const line of embeddingLines(plan.embeddings.used)) log.info(line);
  for (const warning of plan.warnings) log.warn(warning);
  const { recalledInput } = options;
  if (plan.input !== null && recalledInput) {
    const { imageHash, maskHash } = plan.input;
    const isSame = imageHash === recalledInput.image && maskHash === (recalledInput.mask ?? null);
    if (!isSame) log.warn("The image of --from-image started from another image or mask.");
  }
  log.info(describeImages(options.plan ? "Planning" : "Generating", plan));
}

function describeModel({ isBundledModel, model }: PreparedPipeline, options: SampleOptions) {
  if (isBundledModel) {
    const { width, height } = model.nativeSize;
    return `No --model given: using the bundled ${model.name} (${width}x${height} images of \
simple scenes). For a real model: --model PATH, or a name on the Hugging Face hub, such as \
stabilityai/stable-diffusion-xl-base-1.0.`;
  }
  return `Model: ${model.path}${options.model === undefined ? " (from BASEDXL_MODEL)" : ""}.`;
}

function describeRefiner({ path }: { path: string }, { settings }: PlannedRequest): string {
  const { denoisingEnd } = settings;
  const how =
    denoisingEnd < 1 ? `from ${denoisingEnd} of the noise levels on` : "with the last steps anew";
  return `Refiner: ${path}, ${how}.`;
}

function describeImages(doing: string, { settings, input }: PlannedRequest): string {
  const { prompt, width, height, stepCount, scheduler, guidanceScale } = settings;
  const { seed, imageCount, batchSize } = settings;
  const steps = stepCount === 1 ? "1 step" : `${stepCount} steps`;
  const together = batchSize === 1 ? "" : `, ${batchSize} at a time`;
  const several = imageCount === 1 ? "" : `${imageCount} images${together}, `;
  const last = seed + BigInt(imageCount - 1);
  const { noiseOrder, variationStrength } = settings;
  const isOne = imageCount === 1 || noiseOrder === "batch" || variationStrength > 0;
  const seedText = isOne ? `seed ${seed}` : `seeds ${seed} to ${last}`;
  const from = input === null ? "" : `, from an image at strength ${settings.strength}`;
  const shown = prompt.length > 200 ? `${prompt.slice(0, 200)} ...` : prompt;
  return `${doing} ${JSON.stringify(shown)}: ${several}${width}x${height}, ${steps} of \
${scheduler}, guidance ${guidanceScale}, ${seedText}${from}.`;
}

export function textsLeftOut(path: string): string {
  return `The parameters are too long for ${path}, which has none.`;
}

/** Waits until the models' hashes are known, or have taken too long. */
export async function waitForHashes(
  hashes: FileHashes,
  { log, progress }: Output,
  signal: AbortSignal,
): Promise<void> {
  const onWait = () => {
    progress.clear();
    log.info("Waiting for the model's hash, which is kept (--no-metadata does without).");
  };
  if (await hashes.settled(defaultHashWaitMs, onWait, signal)) return;
  log.warn("The model's hash takes long: the image does not have it.");
}
