/**
 * Opens a checkpoint in one file, in the original (SGM) layout. Its keys and shapes say what it is
 * and how its networks are configured; SDXL's constants say the rest, or a diffusers folder
 * (`--config`). In reading order:
 *
 * - `single-file/classify.ts` tells what a file is.
 * - `single-file/shapes.ts` finds the networks, `unet-shape.ts` and `configs.ts` read their sizes.
 * - `single-file/networks.ts` and `weight-names.ts` map diffusers' keys to the file's.
 * - `single-file/prediction.ts` reads the marks of what the model predicts.
 */
import { join } from "node:path";
import { BasedXLError, escaped } from "../errors.ts";
import { weightsName } from "../paths.ts";
import { clipTokenizers } from "../prompt/clip-vocabulary.ts";
import { assembleModel } from "./assemble.ts";
import { parseVaeConfig, type SchedulerConfig } from "./config.ts";
import { checkTogether } from "./consistency.ts";
import { type FolderConfigs, folderWeights, readModelFolder } from "./folder.ts";
import type { Component, ComponentWeights, Model } from "./model.ts";
import { readSafetensorsHeader, type SafetensorsHeader } from "./safetensors-header.ts";
import { classifyHeader, describeFile } from "./single-file/classify.ts";
import { type Networks, networksOf } from "./single-file/networks.ts";
import { detectPrediction } from "./single-file/prediction.ts";
import { singleFileScheduler } from "./single-file/scheduler.ts";
import { sdxlVae } from "./single-file/sdxl.ts";
import { keyOf, keysInBlocks, type PartName, partOf } from "./single-file/shapes.ts";
import { type NetworkNames, unknownKeys } from "./single-file/weight-names.ts";

export interface SingleFileOptions {
  /**
   * A diffusers folder: its configs and tokenizers hold, and networks that the file lacks are taken
   * from it. Default: what the file's shapes say.
   */
  config?: string | undefined;
  /** False where another VAE takes the place of the file's: it may have none. */
  needsVae?: boolean;
}

/**
 * Opens the safetensors file at the absolute `path`. Throws "bad-model" or "bad-weights" with what
 * the file is or lacks.
 */
export async function openSingleFile(
  path: string,
  { config, needsVae = true }: SingleFileOptions = {},
): Promise<Model> {
  const header = readSafetensorsHeader(path);
  checkKind(header);
  const folder = config === undefined ? null : await readModelFolder(config);
  const networks = networksIn(header, folder);
  checkComplete(header, networks, { folder, needsVae });
  const names = networkNames.flatMap((name) => networks[name]?.names ?? []);
  const unknown = unknownKeys(header, names);
  checkBlocks(header, networks, { unknown, isGiven: folder !== null, needsVae });
  const { tokenizer, tokenizer2 } = folder ?? (await clipTokenizers());
  const clip = networks.clip?.config ?? folder?.clip ?? null;
  const configs = {
    clip,
    clip2: (networks.clip2?.config ?? folder?.clip2)!,
    unet: (networks.unet?.config ?? folder?.unet)!,
    vae: networks.vae?.config ?? folder?.vae ?? parseVaeConfig(path, sdxlVae),
  };
  const tokenizers = { tokenizer: clip && tokenizer, tokenizer2 };
  const vocabulary = folder ? join(folder.path, "tokenizer") : path;
  const places = { unet: path, tokenizer: vocabulary, tokenizer2: vocabulary };
  checkTogether(places, { ...configs, ...tokenizers });
  return assembleModel({
    path,
    name: weightsName(path),
    ...configs,
    ...tokenizers,
    scheduler: schedulerOf(header, folder),
    forceZerosForEmptyPrompt: folder?.forceZerosForEmptyPrompt ?? clip !== null,
    weights: await weightsOf(header, networks, folder),
    warnings: [...warningsOf(header, unknown), ...contradictionsOf(header, folder)],
    defaults: {},
  });
}

// --- internal ---

/** Refuses what is no model of the SDXL family, by what it is. */
function checkKind(header: SafetensorsHeader): void {
  const found = classifyHeader(header);
  if (found.sdxl !== null) {
    if (!partOf(header, "unet")!.has("time_embed.cond_proj.weight")) return;
    refuse(header.path, "is a whole LCM model, which is not supported; an LCM LoRA is");
  }
  const advice = adviceByKind[found.kind];
  refuse(header.path, `is ${describeFile(found)}, not an SDXL checkpoint${advice ?? ""}`);
}

/** SDXL's constants need not fit a model of other sizes. */
function networksIn(header: SafetensorsHeader, folder: FolderConfigs | null): Networks {
  try {
    return networksOf(header, folder);
  } catch (error) {
    const isOther = folder === null && classifyHeader(header).sdxl === "other";
    if (!isOther || !(error instanceof BasedXLError)) throw error;
    const reason = error.message.replace(/\.$/, "");
    throw new BasedXLError(error.code, `${reason}; ${otherSizes}.`);
  }
}

const otherSizes =
  "it is built like SDXL but in other sizes, and its keys do not say all of them: name a " +
  "diffusers folder of that architecture with --config FOLDER";

const adviceByKind: Partial<Record<string, string>> = {
  lora: "; name it with --lora, beside a model",
  vae: "; name it with --vae, beside a model",
  embedding: "; name it with --embedding, beside a model",
};

const components: Record<
  keyof Networks,
  [component: Component, noun: string, parts: readonly PartName[]]
> = {
  clip: ["textEncoder", "the first text encoder", ["clip"]],
  clip2: ["textEncoder2", "the second text encoder", ["openClip", "clip2"]],
  unet: ["unet", "the UNet", ["unet"]],
  vae: ["vae", "the VAE", ["vae"]],
};
const bothEncoders = `${components.clip[1]} and ${components.clip2[1]}`;
const networkNames = Object.keys(components) as (keyof Networks)[];

/** Refuses files that lack a network, or tensors of one. */
function checkComplete(
  header: SafetensorsHeader,
  networks: Networks,
  { folder, needsVae }: { folder: FolderConfigs | null; needsVae: boolean },
): void {
  const isRefiner = classifyHeader(header).sdxl === "refiner";
  const optional = [...(isRefiner ? ["clip"] : []), ...(needsVae ? [] : ["vae"])];
  const needed = networkNames.filter((name) => !optional.includes(name));
  const absent = needed.filter((name) => networks[name] === null);
  if (folder === null && absent.includes("unet")) {
    refuse(header.path, otherSizes.replace(/^it /, ""));
  }
  if (folder === null && absent.length > 0) {
    const nouns = absent
      .map((name) => components[name][1])
      .join(" and ")
      .replace(bothEncoders, "both text encoders");
    refuse(
      header.path,
      `lacks ${nouns}; name a diffusers folder that has the rest: --config FOLDER`,
    );
  }
  for (const name of networkNames) {
    const missing = networks[name]?.missing ?? [];
    if (missing.length === 0) continue;
    const noun = components[name][1];
    const count = missing.length === 1 ? "a tensor" : `${missing.length} tensors`;
    refuse(header.path, `lacks ${count} of ${noun}: ${listOf(missing)}`);
  }
}

/**
 * Refuses files with blocks that no network has: a tensor that shows a size is missing, or the
 * configs are of another model, and the image would be another than the file's.
 */
function checkBlocks(
  header: SafetensorsHeader,
  networks: Networks,
  given: { unknown: readonly string[]; isGiven: boolean; needsVae: boolean },
): void {
  const scales = given.unknown.filter((key) => scaleOfWeight.test(key));
  if (scales.length > 0) {
    const what = "has scales of 8-bit weights that no network of the model has";
    refuse(header.path, `${what}: ${listOf(scales)}`);
  }
  for (const name of networkNames) {
    const [, noun, parts] = components[name];
    if (name === "vae" && !given.needsVae) continue;
    for (const part of parts) {
      const strays = keysInBlocks(header, part, given.unknown);
      if (strays.length === 0) continue;
      const source = given.isGiven ? "as --config has it" : "as its keys and shapes describe it";
      const what = networks[name]
        ? `has tensors that ${noun}, ${source}, does not have`
        : `has tensors of ${noun}, but not ${keyOf(part)}`;
      refuse(header.path, `${what}: ${listOf(strays)}`);
    }
  }
}

/** Of the folder, as far as the file does not say what it predicts. */
function schedulerOf(header: SafetensorsHeader, folder: FolderConfigs | null): SchedulerConfig {
  const found = detectPrediction(header);
  const given = folder?.scheduler ?? null;
  const predictionType = found?.predictionType ?? given?.predictionType ?? "epsilon";
  // Of another kind of prediction the folder's noise levels say nothing.
  const isZero = given?.predictionType === predictionType && given.rescaleBetasZeroSnr;
  const rescaleBetasZeroSnr = found?.rescaleBetasZeroSnr ?? isZero;
  const training = { predictionType, rescaleBetasZeroSnr };
  return given ? { ...given, ...training } : singleFileScheduler(header.path, training);
}

async function weightsOf(
  header: SafetensorsHeader,
  networks: Networks,
  folder: FolderConfigs | null,
): Promise<Model["weights"]> {
  const own = (network: NetworkNames | null): ComponentWeights =>
    network ? { files: [header.path], names: network.names } : { files: [], names: null };
  const weights: Model["weights"] = {
    textEncoder: own(networks.clip),
    textEncoder2: own(networks.clip2),
    unet: own(networks.unet),
    vae: own(networks.vae),
  };
  if (folder === null) return weights;
  const absent = networkNames.filter((name) => networks[name] === null);
  return {
    ...weights,
    ...(await folderWeights(
      folder,
      absent.map((name) => components[name][0]),
    )),
  };
}

function warningsOf(header: SafetensorsHeader, unknown: readonly string[]): string[] {
  if (unknown.length === 0) return [];
  const count = unknown.length === 1 ? "a tensor" : `${unknown.length} tensors`;
  const isWhat = unknown.length === 1 ? "is" : "are";
  const what = `holds ${count} that no network of the model has and that ${isWhat} ignored`;
  return [`${header.path} ${what}: ${listOf(unknown)}.`];
}

/** A header's metadata is often that of another file, from which this one was made. */
function contradictionsOf(header: SafetensorsHeader, folder: FolderConfigs | null): string[] {
  const found = detectPrediction(header);
  if (folder === null || found === null || found.rescaleBetasZeroSnr !== null) return [];
  const given = folder.scheduler.predictionType;
  if (found.predictionType === given) return [];
  const path = escaped(header.path, 300);
  return [
    `The header of ${path} says that it predicts ${found.predictionType}, and the scheduler of ` +
      `--config ${given}: the header counts; --prediction-type decides otherwise.`,
  ];
}

/** Without it a weight would be another; see zig/weights/quantization.zig. */
const scaleOfWeight = /[._](scale_weight|weight_scale(_2)?|pre_quant_scale)$/;

const shownMax = 5;

function listOf(keys: readonly string[]): string {
  const shown = keys.slice(0, shownMax).map((key) => escaped(key, 120));
  const rest = keys.length - shown.length;
  return shown.join(", ") + (rest > 0 ? ` and ${rest} more` : "");
}

function refuse(path: string, what: string): never {
  throw new BasedXLError("bad-model", `${escaped(path, 300)} ${what}.`);
}
