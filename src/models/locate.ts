/**
 * The model of a run: `--model`, else the variable BASEDXL_MODEL, else the small bundled model. A
 * path that exists wins, then a name in the folders of models. Only looks at names and first bytes.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { BasedXLError, escaped } from "../errors.ts";
import { kindFoldersOf } from "../library/layouts.ts";
import { checkedFile, isPathAlone, Library, modelFolders, pathOf } from "../library/resolve.ts";
import { modelEnding } from "../library/scan.ts";
import { resources } from "../resources.ts";
import { snapshotOf } from "./hub-cache.ts";

interface ModelLocation {
  /** Absolute path of a diffusers folder or a safetensors file. */
  path: string;
  /** True when nothing was named, so that the run can say which model it takes. */
  bundled: boolean;
}

interface LocateOptions {
  env?: Record<string, string | undefined>;
  /** Folders of models: a list with ":" between, or several. Default: BASEDXL_MODELS_DIR. */
  modelsDir?: string | readonly string[] | undefined;
}

/**
 * The model for the value of `--model` (undefined when not given) and the environment. The root of
 * a model in the hub's cache means its current snapshot. Rejects with "bad-model" for what is not
 * there and "bad-weights" for files in another format, saying how to get a model.
 */
export async function resolveModelPath(
  option: string | undefined,
  { env = process.env, modelsDir }: LocateOptions = {},
): Promise<ModelLocation> {
  const value = option ?? (env.BASEDXL_MODEL || undefined);
  if (value === undefined) return { path: resources.bundledModel(), bundled: true };

  const name = option !== undefined ? "--model" : "BASEDXL_MODEL";
  const refuse = (problem: string) => new BasedXLError("bad-model", problem);
  if (value.trim() === "") throw refuse(`${name} is empty; name a model.`);
  const shown = `${name} ${escaped(value, 300)}`;
  const address = isPathAlone(value) ? null : hubAddress(value);
  const path = pathOf("checkpoint", value) ?? byName(value, address !== null, env, modelsDir);
  if (path !== null) {
    const found = snapshotOf(path) ?? checkedFile(path);
    const why = folderRefusal(found);
    if (why !== null) throw refuse(`${shown} ${why}.`);
    return { path: found, bundled: false };
  }
  if (address !== null) throw refuse(hubRefusal(shown, address));
  if (isAddress(value)) throw refuse(addressRefusal(shown, value));
  const library = new Library(modelFolders(modelsDir, env));
  throw refuse(`${shown} ${library.absence("checkpoint", value)} ${howToGet}.`);
}

// --- internal ---

/** The model of this name in the folders of models; an id of the hub is no name of its cache. */
function byName(
  value: string,
  isHubId: boolean,
  env: Record<string, string | undefined>,
  modelsDir: LocateOptions["modelsDir"],
): string | null {
  if (isPathAlone(value) || isAddress(value)) return null;
  const folders = modelFolders(modelsDir, env, { withHub: !isHubId });
  return new Library(folders).find("checkpoint", value);
}

/** What a folder without a model_index.json is instead of a model; null where nothing tells. */
function folderRefusal(path: string): string | null {
  const names = namesIn(path);
  if (names.length === 0 || names.includes("model_index.json")) return null;
  const files = names.filter((name) => /\.(safetensors|sft)$/i.test(name));
  if (kindFoldersOf(path, () => {}).some(({ kind }) => kind !== "any")) {
    return "is a folder of models, not a model: give it to --models-dir, and --model a name in it";
  }
  if (names.includes("config.json")) {
    return "holds one network, not a whole model: for a VAE there is --vae";
  }
  if (files.length === 0) return null;
  const few = files.slice(0, 3).map((name) => escaped(join(path, name), 200));
  return `is a folder of files, not a model: name one of them, such as ${few.join(", ")}`;
}

/** The names in a folder; none for a file. */
function namesIn(path: string): string[] {
  try {
    return readdirSync(path).sort();
  } catch {
    return [];
  }
}

const howToGet =
  "Or get one with: hf download stabilityai/stable-diffusion-xl-base-1.0 --local-dir sdxl, " +
  "then name it: --model sdxl";

function hubRefusal(shown: string, address: string): string {
  return (
    `${shown} is no folder here, and a model of the Hugging Face hub is not supported ` +
    `yet by its name alone. Download it with: hf download ${address} --local-dir FOLDER, ` +
    "then name it: --model FOLDER."
  );
}

/** An address of a page or a file, or an id of Civitai. */
function isAddress(value: string): boolean {
  return /^(\w+:\/\/|urn:air:|(www\.)?civitai\.\w+(\/|:|$)|civitai:)/i.test(value);
}

function addressRefusal(shown: string, value: string): string {
  if (/^(\w+:\/\/)?(www\.)?civitai\.\w+|^civitai:|^urn:air:/i.test(value)) {
    return (
      `${shown} is an address, not a file: download the model's .safetensors file from Civitai ` +
      "(a browser that is logged in, or curl -L with your API key in the address: ?token=KEY), " +
      "then name the file: --model FILE."
    );
  }
  return (
    `${shown} is an address, not a file: download the model first, as a .safetensors file or a ` +
    "diffusers folder, then name it: --model PATH."
  );
}

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
    return isId && !modelEnding.test(id) ? downloadArguments(id, at) : null;
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
