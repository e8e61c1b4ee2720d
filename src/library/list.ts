/**
 * What the models in folders are: kinds by the headers of safetensors files and the configs of
 * diffusers folders. What is broken or in another format is listed with the reason.
 */
import { readdirSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { recipeOf } from "../adapters/recipes.ts";
import { weightsProblem } from "../models/files.ts";
import { openModelFolder } from "../models/folder.ts";
import { readJsonFile } from "../models/json.ts";
import { readSafetensorsHeader, type SafetensorsHeader } from "../models/safetensors-header.ts";
import { classifyHeader } from "../models/single-file/classify.ts";
import { detectPrediction } from "../models/single-file/prediction.ts";
import type { ListedKind } from "./kinds.ts";
import { type FoundModel, stemOf } from "./scan.ts";

export interface ListedModel {
  /** As it can be asked for. */
  name: string;
  kind: ListedKind;
  /** The model that it is, or is made for, and what is special about it; "" if unknown. */
  detail: string;
  /** Absolute. */
  path: string;
  isFolder: boolean;
  bytes: number;
  /** Why it cannot be used; null for others. */
  problem: string | null;
}

/** Looks into the model that was found. Never rejects. */
export async function describeModel(found: FoundModel): Promise<ListedModel> {
  const { path, isFolder } = found;
  const name = isFolder ? found.name : stemOf(found.name);
  const bytes = bytesOf(path, 0);
  try {
    const seen = isFolder ? await describeFolder(path) : describeFile(path, name);
    return { name, path, isFolder, bytes, problem: null, ...seen };
  } catch (error) {
    const problem = withoutPath((error as Error).message, path);
    return { name, path, isFolder, bytes, kind: "unreadable", detail: "", problem };
  }
}

// --- internal ---

type Seen = Pick<ListedModel, "kind" | "detail"> & Partial<Pick<ListedModel, "problem">>;

function describeFile(path: string, name: string): Seen {
  const problem = weightsProblem(path);
  if (problem !== null) return { kind: "unreadable", detail: "", problem: problem.what };
  const header = readSafetensorsHeader(path);
  const { kind, detail } = classifyHeader(header);
  return { kind, detail: [detail, ...traitsOf(header, name)].filter(Boolean).join(", ") };
}

/** A diffusers folder: a whole model, or one network. */
async function describeFolder(path: string): Promise<Seen> {
  const isModel = statOf(join(path, "model_index.json"))?.isFile() === true;
  const config = await readJsonFile(join(path, isModel ? "model_index.json" : "config.json"));
  const className = classOf(config);
  if (!isModel) {
    return { kind: componentKinds[className] ?? "unknown", detail: className };
  }
  if (!className.startsWith("StableDiffusionXL")) {
    return { kind: "checkpoint", detail: className.replace(/Pipeline$/, "") };
  }
  const { kind, scheduler } = await openModelFolder(path);
  const traits = scheduler.predictionType === "v_prediction" ? ["v-prediction"] : [];
  const which = kind === "refiner" ? "the SDXL refiner" : `SDXL ${kind}`;
  return {
    kind: "checkpoint",
    detail: [which, ...traits, ...fewSteps([basename(path)])].join(", "),
  };
}

function classOf(config: unknown): string {
  const name = (config as { _class_name?: unknown } | null)?._class_name;
  return typeof name === "string" ? name : "";
}

/** By diffusers' classes. */
const componentKinds: Readonly<Record<string, ListedKind | undefined>> = {
  AutoencoderKL: "vae",
  AutoencoderTiny: "taesd",
  ControlNetModel: "controlnet",
  ControlNetUnionModel: "controlnet",
  UNet2DConditionModel: "unet",
  T2IAdapter: "adapter",
};

/** What the header, or the name, says beside the kind. */
function traitsOf(header: SafetensorsHeader, name: string): string[] {
  const { tensors, metadata } = header;
  const title = metadata.get("modelspec.title") ?? "";
  const isFp8 = [...tensors.values()].some(({ dtype }) => /^F8_E[45]M/.test(dtype));
  const isInt8 = [...tensors].some(([key, { dtype }]) => dtype === "I8" && key.endsWith(".weight"));
  const eightBits = [...(isFp8 ? ["fp8"] : []), ...(isInt8 ? ["int8"] : [])];
  return [...predictionOf(header), ...fewSteps([name, title]), ...eightBits];
}

function predictionOf(header: SafetensorsHeader): string[] {
  try {
    const found = detectPrediction(header);
    if (found?.predictionType !== "v_prediction") return [];
    return ["v-prediction", ...(found.rescaleBetasZeroSnr ? ["zero-terminal SNR"] : [])];
  } catch {
    return ["EDM"];
  }
}

/** Models that are made for few steps are named after the method. */
function fewSteps(names: string[]): string[] {
  const recipe = recipeOf(names);
  return recipe === null ? [] : [`few steps (${recipe.title})`];
}

/** Of a file, or of all files below a folder. */
function bytesOf(path: string, depth: number): number {
  const stat = statOf(path);
  if (stat === undefined || depth > 8) return 0;
  if (!stat.isDirectory()) return stat.size;
  try {
    const names = readdirSync(path);
    return names.reduce((sum, name) => sum + bytesOf(join(path, name), depth + 1), 0);
  } catch {
    return 0;
  }
}

/** The sentence without its subject and its advice, which a list has no room for. */
function withoutPath(message: string, path: string): string {
  const bare = message.replace(`${path} `, "").replaceAll(`${path}/`, "");
  return bare.replace(/(; .*)?\.$/s, "");
}

function statOf(path: string) {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}
