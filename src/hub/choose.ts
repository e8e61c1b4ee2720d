/**
 * Which files of a repository a use needs: of diffusers' folders the configs, tokenizers, the
 * scheduler and one set of weights per network, the fp16 one where it is whole; of a repository
 * with single files the only one, or the one that was named. Nothing else is fetched.
 */
import { escaped } from "../errors.ts";
import type { HubUse } from "./cache.ts";
import type { HubFile, Listing } from "./listing.ts";
import { type HubReference, showReference } from "./reference.ts";
import { refusal } from "./refusals.ts";

export interface Choice {
  files: HubFile[];
  /** What the use opens, below the snapshot: a file, a folder, or "" for the snapshot. */
  path: string;
}

export interface ChoiceHelp {
  /** The names in `weight_map` of an index, which is fetched for it. */
  shardsOf(index: HubFile): Promise<string[]>;
  /** A config as it is parsed, fetched likewise; null for what is no JSON. */
  jsonOf(config: HubFile): Promise<unknown>;
  /** Whether the content is here already. */
  isHere(file: HubFile): boolean;
}

/** The files for `use`. Throws "download", naming what there is, where none can be chosen. */
export async function chooseFiles(
  reference: HubReference,
  use: HubUse,
  { files }: Listing,
  help: ChoiceHelp,
): Promise<Choice> {
  const { file } = reference;
  if (file !== undefined) return withConfig(namedFile(reference, file, files), files);
  if (use !== "file" && files.has("model_index.json")) {
    const folders = use === "vae" ? ["vae"] : modelFolders;
    const weights = await Promise.all(
      folders.map((folder) => componentFiles(reference, folder, files, help)),
    );
    const root = use === "vae" ? [] : present(["model_index.json", "basedxl.json"], files);
    return { files: [...root, ...weights.flat()], path: use === "vae" ? "vae" : "" };
  }
  if (use === "vae" && files.has("config.json")) {
    const found = await componentFiles(reference, "", files, help);
    if (found.length > 1) return { files: found, path: "" };
  }
  return withConfig(onlyFile(reference, files), files);
}

/** A component in one of several folders. */
export interface WantedFolder {
  /** Paths in the repository, best first. */
  folders: readonly string[];
  /** Whether a parsed config.json is that of what is wanted. */
  fits(config: unknown): boolean;
}

/** The files of the first folder that fits; null where there is none. */
export async function chooseFolder(
  reference: HubReference,
  { folders, fits }: WantedFolder,
  { files }: Listing,
  help: ChoiceHelp,
): Promise<Choice | null> {
  for (const folder of folders) {
    const config = files.get(`${folder}/config.json`);
    if (config === undefined || !fits(await help.jsonOf(config))) continue;
    return { files: await componentFiles(reference, folder, files, help), path: folder };
  }
  return null;
}

/** Weight files of a component, best first; the order in which a folder is opened is another. */
export function weightCandidates(stem: string): string[] {
  return [
    `${stem}.fp16.safetensors`,
    `${stem}.safetensors.index.fp16.json`,
    `${stem}.fp16.safetensors.index.json`,
    `${stem}.safetensors`,
    `${stem}.safetensors.index.json`,
  ];
}

export const modelFolders = [
  "text_encoder",
  "text_encoder_2",
  "tokenizer",
  "tokenizer_2",
  "scheduler",
  "unet",
  "vae",
] as const;

/** The stem of a component's weights; null for folders without any. */
export function weightStem(folder: string): string | null {
  if (folder.startsWith("text_encoder") || folder.endsWith("image_encoder")) return "model";
  return ["unet", "vae", ""].includes(folder) ? "diffusion_pytorch_model" : null;
}

/** "config.json", or what takes its place in the folder. */
export function configNames(folder: string): string[] {
  if (folder.startsWith("tokenizer")) return tokenizerFiles;
  return [folder === "scheduler" ? "scheduler_config.json" : "config.json"];
}

// --- internal ---

const tokenizerFiles = [
  "tokenizer.json",
  "vocab.json",
  "merges.txt",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
];

type Files = Listing["files"];

function present(names: readonly string[], files: Files): HubFile[] {
  return names.flatMap((name) => files.get(name) ?? []);
}

/** Everything of one folder; nothing where the repository has no such folder (a refiner's). */
async function componentFiles(
  reference: HubReference,
  folder: string,
  files: Files,
  { shardsOf, isHere }: ChoiceHelp,
): Promise<HubFile[]> {
  const prefix = folder === "" ? "" : `${folder}/`;
  const inFolder = (name: string) => files.get(`${prefix}${name}`);
  const configs = configNames(folder).flatMap((name) => inFolder(name) ?? []);
  const stem = weightStem(folder);
  if (stem === null || configs.length === 0) return configs;
  const sets: HubFile[][] = [];
  for (const name of weightCandidates(stem)) {
    const first = inFolder(name);
    if (first === undefined) continue;
    const names = name.endsWith(".json") ? await shardsOf(first) : [];
    const shards = names.map(inFolder);
    const isWhole = shards.every((shard) => shard !== undefined);
    if (isWhole && (names.length > 0 || !name.endsWith(".json"))) {
      sets.push([first, ...shards]);
    }
  }
  const set = sets.find((each) => each.every(isHere)) ?? sets[0];
  if (set !== undefined) return [...configs, ...set];
  const pickled = [...files.keys()].some((name) => {
    return name.startsWith(prefix) && /^[^/]+\.(bin|ckpt|pt)$/.test(name.slice(prefix.length));
  });
  throw refusal(
    `${reference.id} has no whole safetensors weights in ${folder || "its folder"}${
      pickled ? ", only pickled ones, which can run code when they are opened" : ""
    }; choose another revision or a repository with .safetensors files.`,
  );
}

/** PEFT keeps a LoRA's scale in a file beside its weights. */
function withConfig(choice: Choice, files: Files): Choice {
  const folder = choice.path.slice(0, choice.path.lastIndexOf("/") + 1);
  // The weights are linked last: they are what the file's presence is judged by.
  return {
    ...choice,
    files: [...present([`${folder}adapter_config.json`], files), ...choice.files],
  };
}

function namedFile(reference: HubReference, name: string, files: Files): Choice {
  const file = files.get(name);
  if (file !== undefined && /\.safetensors$/i.test(name)) {
    return { files: [file], path: name };
  }
  if (file !== undefined) {
    throw refusal(
      `${escaped(showReference(reference), 300)} is no .safetensors file; others are not opened.`,
    );
  }
  throw refusal(
    `${reference.id} has no file ${escaped(name, 300)}; ${thereAre(weightsIn(files))}.`,
  );
}

/** The one weights file of a repository that is no diffusers folder. */
function onlyFile(reference: HubReference, files: Files): Choice {
  const names = weightsIn(files);
  const usual = names.filter((name) =>
    ["pytorch_lora_weights.safetensors", "adapter_model.safetensors"].includes(name),
  );
  const [name, ...more] = usual.length === 1 ? usual : names;
  if (name !== undefined && more.length === 0) return { files: [files.get(name)!], path: name };
  if (name === undefined) {
    const other = [...files.keys()].find((each) => /\.(ckpt|pt|pth|bin|gguf)$/i.test(each));
    const instead = other === undefined ? "" : ` (it has ${escaped(other, 100)})`;
    throw refusal(
      `${reference.id} is no diffusers model and has no .safetensors file${instead}; name another.`,
    );
  }
  throw refusal(
    `${reference.id} has several models: ${thereAre(names)}; name one, such as ` +
      `${escaped(showReference({ ...reference, file: name }), 300)}.`,
  );
}

function weightsIn(files: Files): string[] {
  return [...files.keys()].filter((name) => /\.safetensors$/i.test(name)).sort();
}

function thereAre(names: readonly string[]): string {
  if (names.length === 0) return "it has no .safetensors file";
  const shown = names.slice(0, 8).map((name) => escaped(name, 150));
  const more = names.length - shown.length;
  return `it has ${shown.join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}
