/**
 * The model folder of a run: `--model`, else the variable BASEDXL_MODEL, else the small bundled
 * model. Only looks at the path; `openModelFolder` looks inside.
 */
import { statSync } from "node:fs";
import { BasedXLError, escaped } from "../errors.ts";
import { absolutePath, expandHome } from "../paths.ts";
import { resources } from "../resources.ts";
import { snapshotOf } from "./hub-cache.ts";

interface ModelLocation {
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
  const path = absolutePath(expandHome(value));
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

const howToConvert =
  'Convert it with diffusers: StableDiffusionXLPipeline.from_single_file("FILE")' +
  '.save_pretrained("FOLDER"), then name the folder';

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
  if (/^(https?:\/\/)?(www\.)?civitai\.\w+\//i.test(value)) {
    return (
      `${name} ${value} is an address, not a folder: download its .safetensors file first. ` +
      `${howToConvert}.`
    );
  }
  if (/^\w+:\/\//.test(value)) {
    return `${name} ${value} is an address, not a folder: download the model first. ${howToGet}.`;
  }
  const ending = singleFile.exec(value)?.[0];
  if (ending) {
    return (
      `${name} ${value} is a single ${ending} file, which is not supported yet. ` +
      `${howToConvert}.`
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
  const hosts = "(?:huggingface\\.co|hf\\.co|hf-mirror\\.com)";
  const page = new RegExp(`^(?:https?://)?(?:www\\.)?${hosts}/+([^?#]*)`, "i").exec(value);
  const [, inHub] = /^hf:\/\/([^?#]*)/i.exec(value) ?? [];
  const path = page?.[1] ?? inHub;
  if (path === undefined) {
    const [id = "", at] = splitRevision(value);
    const isId = /^[\w.-]+\/[\w.-]+$/.test(id) && !/^\.|\.\//.test(id);
    return isId && !singleFile.test(id) ? downloadArguments(id, at) : null;
  }
  const [owner = "", last = "", kind, named] = path.split("/").filter((part) => part !== "");
  const [repository = "", at] = splitRevision(last);
  const model = repository.replace(/\.git$/i, "");
  const isModel = /^[\w.-]+$/.test(owner) && /^[\w.-]+$/.test(model);
  if (!isModel || ["datasets", "spaces", "models", "docs", "blog"].includes(owner)) return null;
  const isPage = kind !== undefined && revisionPages.includes(kind);
  return downloadArguments(`${owner}/${model}`, at ?? (isPage ? named : undefined));
}

/** Pages of the hub whose address names a revision next. */
const revisionPages = ["tree", "blob", "resolve", "raw", "commit", "commits", "blame"];

/** "name@revision", as in addresses of huggingface_hub. */
function splitRevision(text: string): string[] {
  return text.split(/@(.*)/s, 2);
}

/** A branch with a slash, such as refs/pr/3, is written refs%2Fpr%2F3 in addresses. */
function downloadArguments(id: string, revision: string | undefined): string {
  const plain = revision?.replaceAll(/%2f/gi, "/");
  if (plain === undefined || plain === "main" || !/^[\w.-][\w./-]*$/.test(plain)) return id;
  return `${id} --revision ${plain}`;
}
