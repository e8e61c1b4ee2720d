/**
 * The model of a run: `--model`, else the variable BASEDXL_MODEL, else the small bundled model. A
 * path that exists wins, then a name in the folders of models. Only looks at names and first bytes.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { BasedXLError, escaped } from "../errors.ts";
import {
  findHubModel,
  type HubOptions,
  type HubReference,
  openHubModel,
  showReference,
} from "../hub.ts";
import { kindFoldersOf } from "../library/layouts.ts";
import { checkedFile, isPathAlone, Library, modelFolders, pathOf } from "../library/resolve.ts";
import { resources } from "../resources.ts";
import { snapshotOf } from "./hub-cache.ts";
import { referenceTo } from "./hub-files.ts";

interface ModelLocation {
  /** Absolute path of a diffusers folder or a safetensors file. */
  path: string;
  /** True when nothing was named, so that the run can say which model it takes. */
  bundled: boolean;
}

interface LocateOptions {
  /** The setting that names the model, for messages. Default: --model. */
  flag?: string | undefined;
  env?: Record<string, string | undefined>;
  /** Folders of models: a list with ":" between, or several. Default: BASEDXL_MODELS_DIR. */
  modelsDir?: string | readonly string[] | undefined;
  /** How a model of the hub is fetched. Default: not at all, it is found in the cache only. */
  hub?: HubOptions | undefined;
}

/**
 * The model for the value of `--model` (undefined when not given) and the environment. The root of
 * a model in the hub's cache means its current snapshot. Rejects with "bad-model" for what is not
 * there, "bad-weights" for files in another format, "download", "io" and "cancelled" where a model
 * cannot be fetched, saying how to get a model.
 */
export async function resolveModelPath(
  option: string | undefined,
  options: LocateOptions = {},
): Promise<ModelLocation> {
  const { env = process.env, modelsDir, flag = "--model" } = options;
  const value = option ?? (env.BASEDXL_MODEL || undefined);
  if (value === undefined) return { path: resources.bundledModel(), bundled: true };

  const name = option !== undefined ? flag : "BASEDXL_MODEL";
  const refuse = (problem: string) => new BasedXLError("bad-model", problem);
  if (value.trim() === "") throw refuse(`${name} is empty; name a model.`);
  const shown = `${name} ${escaped(value, 300)}`;
  const reference = referenceTo(value, env);
  const path = pathOf("checkpoint", value) ?? byName(value, reference !== null, env, modelsDir);
  if (path !== null) {
    const found = snapshotOf(path) ?? checkedFile(path);
    const why = folderRefusal(found);
    if (why !== null) throw refuse(`${shown} ${why}.`);
    return { path: found, bundled: false };
  }
  if (reference !== null) {
    return { path: checkedFile(await fromHub(reference, shown, options)), bundled: false };
  }
  if (isAddress(value)) throw refuse(addressRefusal(shown, value));
  const library = new Library(modelFolders(modelsDir, env));
  throw refuse(`${shown} ${library.absence("checkpoint", value)} ${howToGet(flag)}.`);
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

function howToGet(flag: string): string {
  const model = `stable-diffusion-xl-${flag === "--model" ? "base" : "refiner"}-1.0`;
  return `Or fetch one from the Hugging Face hub: ${flag} stabilityai/${model}`;
}

/** A model of the hub: from its cache, or fetched into it where `hub` is given. */
async function fromHub(
  reference: HubReference,
  shown: string,
  { env = process.env, hub }: LocateOptions,
): Promise<string> {
  const cached = findHubModel(reference, env);
  if (cached !== null) return cached;
  if (hub === undefined) {
    throw new BasedXLError(
      "bad-model",
      `${shown} is neither here nor in the cache of the Hugging Face hub; fetch it with: basedxl ` +
        `pull ${escaped(showReference(reference), 300)}.`,
    );
  }
  try {
    return (await openHubModel(reference, hub)).path;
  } catch (error) {
    if (!(error instanceof BasedXLError) || error.code !== "download") throw error;
    throw new BasedXLError("download", `${shown} is not on this machine. ${error.message}`);
  }
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
