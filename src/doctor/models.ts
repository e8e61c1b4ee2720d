/**
 * Which models this machine has: the bundled one, the one that BASEDXL_MODEL names, and SDXL
 * folders that other programs keep in the Hugging Face cache, which --model takes as they are.
 */
import { existsSync, readdirSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { openModelFolder } from "../models/folder.ts";
import { resolveModelPath } from "../models/locate.ts";
import { textOf } from "./machine.ts";
import { type Line, note, ok, problem, type Section } from "./report.ts";

type Env = Record<string, string | undefined>;

export interface HubModel {
  name: string;
  path: string;
}

const shownMax = 4;

export async function modelSection(env: Env): Promise<Section> {
  const folder = hubFolder(env);
  const models = folder === null ? [] : hubModels(folder);
  const shown = models.slice(0, shownMax).map(({ name, path }) => ok(name, `--model ${path}`));
  const more = models.length - shown.length;
  return {
    title: "Models",
    lines: [
      await defaultLine(env),
      ...shown,
      ...(more > 0 ? [note("", `and ${more} more in ${folder}`)] : []),
      ...(models.length === 0
        ? [note("hub cache", `${folder ?? "no home folder"}: no SDXL model`)]
        : []),
    ],
    facts: { model: env.BASEDXL_MODEL ?? null, hub_cache: folder, hub_models: models },
  };
}

/** Where huggingface_hub keeps its files; null without a home folder. */
export function hubFolder(env: Env): string | null {
  if (env.HF_HUB_CACHE) return env.HF_HUB_CACHE;
  if (env.HF_HOME) return join(env.HF_HOME, "hub");
  const home = env.HOME || homeFolder();
  return home ? join(env.XDG_CACHE_HOME || join(home, ".cache"), "huggingface", "hub") : null;
}

/** Snapshots with an SDXL pipeline and its UNet's folder. */
export function hubModels(folder: string): HubModel[] {
  return namesIn(folder)
    .filter((name) => name.startsWith("models--"))
    .flatMap((name) => {
      const snapshots = join(folder, name, "snapshots");
      const path = namesIn(snapshots)
        .map((snapshot) => join(snapshots, snapshot))
        .find(isSdxl);
      return path === undefined ? [] : [{ name: name.split("--").slice(1).join("/"), path }];
    });
}

// --- internal ---

async function defaultLine(env: Env): Promise<Line> {
  try {
    const { path, bundled } = resolveModelPath(undefined, env);
    const { name } = await openModelFolder(path);
    return ok("default", bundled ? `${name}, bundled` : `${path} (BASEDXL_MODEL)`);
  } catch (error) {
    return problem("default", {
      what: (error as Error).message,
      advice: env.BASEDXL_MODEL
        ? "Correct BASEDXL_MODEL, or unset it for the bundled model."
        : "Name a model with --model.",
    });
  }
}

function isSdxl(path: string): boolean {
  const index = textOf(join(path, "model_index.json"));
  return index.includes('"StableDiffusionXL') && existsSync(join(path, "unet"));
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}

function homeFolder(): string {
  try {
    return homedir();
  } catch {
    return "";
  }
}
