/**
 * What all machines must draw alike, as names and values that they compare before they begin: a
 * image whose parts were drawn with different flags would be nobody's.
 */
import { statSync } from "node:fs";
import type { ModelFolder } from "../models/folder.ts";
import type { GenerateRequest } from "../pipeline/generate.ts";

/** By what a user would change, such as "--steps"; values are short texts. */
export type Settings = Record<string, string>;

/** `seedIsRandom`: the machines then take that of machine 0. */
export function settingsOf(
  request: GenerateRequest,
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

/** The first setting that two machines do not share, in a sentence; null where they share all. */
export function differenceOf(ours: Settings, theirs: Settings, index: number): string | null {
  for (const name of new Set([...Object.keys(ours), ...Object.keys(theirs)])) {
    const [first, second] = [ours[name], theirs[name]];
    if (first === second) continue;
    return `Machine ${index} and machine 0 differ in ${name} (${shown(second)} and \
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
  if (value === undefined) return "not known";
  return value.length > 80 ? `${value.slice(0, 80)} ...` : value;
}
