/**
 * Which model folder a run uses: `--model`, else the variable BASEDXL_MODEL, else the small bundled
 * model. Only looks at the path; `openModelFolder` looks inside.
 */
import { statSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { BasedXLError } from "../errors.ts";
import { resources } from "../resources.ts";

export interface ModelLocation {
  /** Absolute path of a folder. */
  path: string;
  /** True when nothing was named, so that the run can say which model it takes. */
  bundled: boolean;
}

/**
 * The model folder for the value of `--model` (undefined when not given) and the environment.
 * Throws "bad-model" for hub ids, single files and paths that are no folder, saying how to get a
 * folder.
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
  const path = resolve(home ? join(homedir(), value.slice(1)) : value);
  const stat = lookUp(path, `${name} ${value}`);
  if (stat?.isDirectory()) return { path, bundled: false };
  throw new BasedXLError("bad-model", refusal(name, value, stat !== undefined));
}

// --- internal ---

/** What is at `path`, undefined if nothing. A name the system cannot look up is told as it says. */
function lookUp(path: string, what: string) {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    const { message } = error as Error;
    throw new BasedXLError("bad-model", `${what} cannot be opened (${message}). ${howToGet}.`);
  }
}

const howToGet =
  "Get a diffusers folder with: hf download stabilityai/stable-diffusion-xl-base-1.0 " +
  "--local-dir sdxl, then name it: --model sdxl";

function refusal(name: string, value: string, exists: boolean): string {
  const ending = /\.(safetensors|ckpt|gguf|pt|pth|bin)$/i.exec(value)?.[0];
  if (ending) {
    return (
      `${name} ${value} is a single ${ending} file, which is not supported yet. ` +
      'Convert it with diffusers: StableDiffusionXLPipeline.from_single_file("FILE")' +
      '.save_pretrained("FOLDER"), then name the folder.'
    );
  }
  if (exists) return `${name} ${value} is a file, not a diffusers folder. ${howToGet}.`;
  if (/^[\w.-]+\/[\w.-]+$/.test(value) && !value.startsWith(".")) {
    const command = `hf download ${value} --local-dir FOLDER`;
    return (
      `${name} ${value} is no folder here, and a model of the Hugging Face hub is not supported ` +
      `yet by its name alone. Download it with: ${command}, then name it: --model FOLDER.`
    );
  }
  return `${name} ${value} does not exist. ${howToGet}.`;
}
