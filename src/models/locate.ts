/**
 * The model folder of a run: `--model`, else the variable BASEDXL_MODEL, else the small bundled
 * model. Only looks at the path; `openModelFolder` looks inside.
 */
import { statSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { BasedXLError, escaped } from "../errors.ts";
import { absolutePath } from "../paths.ts";
import { resources } from "../resources.ts";
import { snapshotOf } from "./hub-cache.ts";

export interface ModelLocation {
  /** Absolute path of a folder. */
  path: string;
  /** True when nothing was named, so that the run can say which model it takes. */
  bundled: boolean;
}

/**
 * The model folder for the value of `--model` (undefined when not given) and the environment. The
 * root of a model in the hub's cache means its current snapshot. Throws "bad-model" for hub ids and
 * addresses, single files and paths that are no folder, saying how to get a folder.
 */
export function resolveModelPath(
  option: string | undefined,
  env: Record<string, string | undefined> = process.env,
): ModelLocation {
  const value = option ?? (env.BASEDXL_MODEL || undefined);
  if (value === undefined) return { path: resources.bundledModel(), bundled: true };

  const name = option !== undefined ? "--model" : "BASEDXL_MODEL";
  if (value.trim() === "") {
    throw new BasedXLError("bad-model", `${name} is empty; name a diffusers folder.`);
  }
  const home = value === "~" || value.startsWith("~/");
  const path = absolutePath(home ? join(homedir(), value.slice(1)) : value);
  const stat = lookUp(path, `${name} ${escaped(value, 300)}`);
  if (stat?.isDirectory()) return { path: snapshotOf(path) ?? path, bundled: false };
  throw new BasedXLError("bad-model", refusal(name, escaped(value, 300), stat !== undefined));
}

// --- internal ---

/** The entry at `path`, undefined if none. Throws with the system's reason if that fails. */
function lookUp(path: string, what: string) {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    const message = escaped((error as Error).message, 300);
    throw new BasedXLError("bad-model", `${what} cannot be opened (${message}). ${howToGet}.`);
  }
}

const howToGet =
  "Get a diffusers folder with: hf download stabilityai/stable-diffusion-xl-base-1.0 " +
  "--local-dir sdxl, then name it: --model sdxl";

function refusal(name: string, value: string, exists: boolean): string {
  if (exists && !singleFile.test(value)) {
    return `${name} ${value} is a file, not a diffusers folder. ${howToGet}.`;
  }
  const address = exists ? null : hubAddress(value);
  if (address !== null) {
    return (
      `${name} ${value} is no folder here, and a model of the Hugging Face hub is not supported ` +
      `yet by its name alone. Download it with: hf download ${address} --local-dir FOLDER, ` +
      "then name it: --model FOLDER."
    );
  }
  if (/^\w+:\/\//.test(value)) {
    return `${name} ${value} is an address, not a folder: download the model first. ${howToGet}.`;
  }
  const ending = singleFile.exec(value)?.[0];
  if (ending) {
    return (
      `${name} ${value} is a single ${ending} file, which is not supported yet. ` +
      'Convert it with diffusers: StableDiffusionXLPipeline.from_single_file("FILE")' +
      '.save_pretrained("FOLDER"), then name the folder.'
    );
  }
  return `${name} ${value} does not exist. ${howToGet}.`;
}

const singleFile = /\.(safetensors|ckpt|gguf|pt|pth|bin)$/i;

/**
 * The arguments of `hf download` for an id or any page of a model on the hub: "org/name", with the
 * revision where the address names one; null for all else.
 */
function hubAddress(value: string): string | null {
  const page = /^(?:https?:\/\/)?(?:www\.)?(?:huggingface\.co|hf\.co)\/+([^?#]*)/i.exec(value);
  const [, inHub] = /^hf:\/\/([^?#]*)/i.exec(value) ?? [];
  const path = page?.[1] ?? inHub;
  if (path === undefined) {
    const isId = /^[\w.-]+\/[\w.-]+$/.test(value) && !/^\.|\.\//.test(value);
    return isId && !singleFile.test(value) ? value : null;
  }
  const [owner = "", model = "", kind, revision] = path.split("/").filter((part) => part !== "");
  const isModel = /^[\w.-]+$/.test(owner) && /^[\w.-]+$/.test(model);
  if (!isModel || ["datasets", "spaces", "models", "docs", "blog"].includes(owner)) return null;
  const named = kind !== undefined && ["tree", "blob", "resolve", "raw"].includes(kind);
  const other = named && revision !== undefined && revision !== "main";
  if (!other || !/^[\w.-]+$/.test(revision)) return `${owner}/${model}`;
  return `${owner}/${model} --revision ${revision}`;
}
