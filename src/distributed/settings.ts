/**
 * Settings that all processes of one image must share, as names and values that they compare
 * before they start. Which these are is a column of the table of settings.
 */
import { fingerprintOf } from "../adapters/plan.ts";
import { escaped } from "../errors.ts";
import { sampleOf } from "../models/file-sample.ts";
import type { Model } from "../models/model.ts";
import type { GpuOptions } from "../native/handle.ts";
import type { Network } from "../networks/network.ts";
import type { PlannedImage, PlannedRequest } from "../pipeline/request.ts";
import { type KeysWhere, settingKeys, settingOf, settings } from "../settings/table.ts";

/** Keys are what a user would change, such as "--steps"; values are short texts. */
export type Settings = Record<string, string>;

/** Facts of a process beside its request. */
export interface ProcessFacts {
  version: string;
  model: Model;
  /** Null or absent for none. */
  refiner?: Model | null | undefined;
  /** Of this process. */
  rankCount: number;
  gpu: GpuOptions;
  /** All then take the seed of process 0. */
  seedIsRandom: boolean;
}

export function settingsOf(request: PlannedRequest, facts: ProcessFacts): Settings {
  const { gpu, model, refiner, rankCount, seedIsRandom, version } = facts;
  // A setting that the table calls the same for all processes does not compile until it is here.
  const values: Record<KeysWhere<{ processes: "same" }>, unknown> = {
    ...request.settings,
    ...gpu,
    rankCount,
    // Those of all images, which may come from a file.
    prompt: textsOf(request, ({ prompt }) => prompt),
    prompt2: textsOf(request, ({ prompt2 }) => prompt2),
    negativePrompt: textsOf(request, ({ negativePrompt }) => negativePrompt ?? undefined),
    negativePrompt2: textsOf(request, ({ negativePrompt2 }) => negativePrompt2),
    // The same files may have other names elsewhere.
    loras: request.loras.length === 0 ? undefined : fingerprintOf(request.loras),
    embeddings: embeddingsOf(request),
    controlnet: networksOf(request),
    controlImage: hashesOf(request),
    ipAdapter: ipAdaptersOf(request),
    // Of the adapters.
    ipEncoder: undefined,
    ipImage: request.ipAdapters.flatMap(({ imageHashes }) => imageHashes).join(", ") || undefined,
    image: request.input?.imageHash,
    mask: request.input?.maskHash ?? undefined,
    ...(seedIsRandom && { seed: undefined }),
  };
  const compared = settingKeys.filter((key) => settingOf(key).processes === "same");
  return {
    "the version": version,
    "the model": fingerprint(model),
    "the refiner": refiner ? fingerprint(refiner) : "none",
    ...Object.fromEntries(
      compared.map((key) => [
        `--${settings[key].flag}`,
        String(values[key as keyof typeof values] ?? "none"),
      ]),
    ),
  };
}

/** A sentence on the first setting that two processes do not share; null where all agree. */
export function differenceOf(ours: Settings, theirs: Settings, index: number): string | null {
  for (const name of new Set([...Object.keys(ours), ...Object.keys(theirs)])) {
    // A key may be "__proto__".
    const [first, second] = [ours, theirs].map((all) =>
      Object.hasOwn(all, name) ? all[name] : undefined,
    );
    if (first === second) continue;
    return `Process ${index} and process 0 differ in ${name} (${shown(second)} and \
${shown(first)}): start all with the same flags, model and version.`;
  }
  return null;
}

// --- internal ---

/** One text where all images have the same. */
function textsOf(
  { batches }: PlannedRequest,
  of: (image: PlannedImage) => string | undefined,
): string | undefined {
  const texts = batches.flatMap(({ images }) => images.map(of));
  return new Set(texts).size === 1 ? texts[0] : JSON.stringify(texts);
}

/** Those that prompts mention, wherever their files are. */
function embeddingsOf({ embeddings }: PlannedRequest): string | undefined {
  return embeddings.used.map(({ name, hash }) => `${name} ${hash}`).join(", ") || undefined;
}

/** Samples of their weights, wherever the files are. */
function networksOf({ controls }: PlannedRequest): string | undefined {
  return samplesOf(controls.map(({ network }) => network));
}

/** With the encoders of their images. */
function ipAdaptersOf({ ipAdapters }: PlannedRequest): string | undefined {
  return samplesOf(ipAdapters.flatMap(({ adapter, encoder }) => [adapter, encoder]));
}

function samplesOf(networks: readonly Network[]): string | undefined {
  const samples = networks.map(({ weights }) => weights.files.map(sampleOf));
  return samples.length === 0 ? undefined : Bun.hash(JSON.stringify(samples)).toString(16);
}

function hashesOf({ controls }: PlannedRequest): string | undefined {
  const hints = controls.flatMap((control) => control.hints);
  return hints.map(({ imageHash }) => imageHash).join(", ") || undefined;
}

/** Configs, vocabularies, and of the weights sizes and samples: all of them take minutes. */
function fingerprint(model: Model): string {
  const { clip, clip2, unet, vae, scheduler, forceZerosForEmptyPrompt, weights } = model;
  const samples = Object.values(weights).map(({ files }) => files.map(sampleOf));
  const text = "a model's words: 0 1 2";
  const ids = [model.tokenizer, model.tokenizer2].map((tokenizer) => [
    ...(tokenizer?.encode(text).ids ?? []),
  ]);
  const all = { clip, clip2, unet, vae, scheduler, forceZerosForEmptyPrompt, samples, ids };
  return Bun.hash(JSON.stringify(all)).toString(16).padStart(16, "0");
}

function shown(value: string | undefined): string {
  return value === undefined ? "not known" : escaped(value, 80);
}
