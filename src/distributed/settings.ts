/**
 * The settings that all processes must share, as names and values that are compared before they
 * begin: an image whose patches were generated with different flags would be wrong.
 */
import { statSync } from "node:fs";
import { escaped } from "../errors.ts";
import type { ModelFolder } from "../models/folder.ts";
import type { SampleRequest } from "../pipeline/request.ts";

/** Keys are what a user would change, such as "--steps"; values are short texts. */
export type Settings = Record<string, string>;

/** `seedIsRandom`: all processes then take that of process 0. */
export function settingsOf(
  request: SampleRequest,
  { version, gpus, seedIsRandom }: { version: string; gpus: number; seedIsRandom: boolean },
): Settings {
  const { gpu, model, seeds } = request;
  const values: Record<string, unknown> = {
    "the version": version,
    "the model": fingerprint(model),
    "--gpus": gpus,
    "--prompt": request.prompt,
    "--negative-prompt": request.negativePrompt,
    "--seed": seedIsRandom ? "none" : String(seeds[0]),
    "--rng": request.rng ?? "cpu",
    "--num-images": seeds.length,
    "--batch-size": request.batchSize,
    "--guidance-scale": request.guidanceScale,
    "--guidance-rescale": request.guidanceRescale ?? 0,
    "--num-inference-steps": request.stepCount,
    "--width": request.width,
    "--height": request.height,
    "--scheduler": request.scheduler,
    "--use-karras-sigmas": request.useKarrasSigmas,
    "--timestep-spacing": request.timestepSpacing,
    "--dtype": gpu?.dtype,
    "--fp16-accumulate": gpu?.fp16Accumulate,
    "--split-batch": request.splitBatch,
    "--sync-mode": request.syncMode,
    "--warmup-steps": request.warmupStepCount,
    "--predict-borders": request.extrapolateHalos,
  };
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, String(value ?? "none")]),
  );
}

/** A sentence on the first setting that two processes do not share; null where all agree. */
export function differenceOf(ours: Settings, theirs: Settings, index: number): string | null {
  for (const name of new Set([...Object.keys(ours), ...Object.keys(theirs)])) {
    const [first, second] = [ours[name], theirs[name]];
    if (first === second) continue;
    return `Process ${index} and process 0 differ in ${name} (${shown(second)} and \
${shown(first)}): start all with the same flags, model and version.`;
  }
  return null;
}

// --- internal ---

/** Configs, vocabularies and the sizes of the weights: not their values, which take minutes. */
function fingerprint(model: ModelFolder): string {
  const { clip, clip2, unet, vae, scheduler, forceZerosForEmptyPrompt, weights } = model;
  const sizes = Object.values(weights).map((paths) => paths.map((path) => statSync(path).size));
  const text = "a model's words: 0 1 2";
  const ids = [model.tokenizer, model.tokenizer2].map((tokenizer) => [
    ...tokenizer.encode(text).ids,
  ]);
  const all = { clip, clip2, unet, vae, scheduler, forceZerosForEmptyPrompt, sizes, ids };
  return Bun.hash(JSON.stringify(all)).toString(16).padStart(16, "0");
}

function shown(value: string | undefined): string {
  return value === undefined ? "not known" : escaped(value, 80);
}
