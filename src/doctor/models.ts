/**
 * The models of this machine: the bundled one, the one that BASEDXL_MODEL names, and SDXL
 * folders that other programs keep in the Hugging Face cache. Those that would not load are named
 * with the reason: `sample` would give the same one.
 */
import { join } from "node:path";
import { BasedXLError, escaped } from "../errors.ts";
import { hubCacheFolder } from "../hub/settings.ts";
import { Library, modelFolders } from "../library/resolve.ts";
import { fileProblem } from "../models/files.ts";
import { cachedModels, snapshotOf } from "../models/hub-cache.ts";
import { checkHasInput } from "../models/kind.ts";
import { resolveModelPath } from "../models/locate.ts";
import { nativeModelOf } from "../models/native-model.ts";
import { openModel } from "../models/open.ts";
import { readSafetensorsHeader } from "../models/safetensors-header.ts";
import { checkModel } from "../native/plan.ts";
import { makeSchedule, samplerOfModel } from "../schedule.ts";
import { textOf } from "./machine.ts";
import { type Line, note, ok, problem, type Section } from "./report.ts";

type Env = Record<string, string | undefined>;

interface HubModel {
  name: string;
  path: string;
}

interface HubModels {
  /** All that `sample` loads. */
  usable: HubModel[];
  /** SDXL models that it refuses. */
  refused: (HubModel & { reason: string })[];
}

const shownMax = 4;
const refusedMax = 3;

export async function modelSection(env: Env): Promise<Section> {
  const folder = hubCacheFolder(env);
  const { usable, refused } =
    folder === null ? { usable: [], refused: [] } : await hubModels(folder);
  const shown = usable.slice(0, shownMax).map(({ name, path }) => ok(name, `--model ${path}`));
  const unusable = refused
    .slice(0, refusedMax)
    .map(({ name, reason }) => note(name, `cannot be used: ${reason}`));
  const more = usable.length - shown.length;
  const moreRefused = refused.length - unusable.length;
  return {
    title: "Models",
    lines: [
      await defaultLine(env),
      ...shown,
      ...(more > 0 ? [note("", `and ${more} more in ${folder}`)] : []),
      ...unusable,
      ...(moreRefused > 0 ? [note("", `and ${moreRefused} more that cannot be used`)] : []),
      ...(usable.length + refused.length === 0
        ? [note("hub cache", `${folder ?? "no home folder"}: no SDXL model`)]
        : []),
      ...folderLines(env),
    ],
    facts: {
      model: env.BASEDXL_MODEL ?? null,
      models_dir: env.BASEDXL_MODELS_DIR ?? null,
      hub_cache: folder,
      hub_models: usable,
      hub_models_refused: refused,
    },
  };
}

/** The current snapshots of the cache's SDXL models, each opened as `sample` opens it. */
export async function hubModels(folder: string): Promise<HubModels> {
  const found: HubModels = { usable: [], refused: [] };
  for (const { name, root } of cachedModels(folder)) {
    const path = currentSnapshot(root);
    if (path === null || !isSdxl(path)) continue;
    const reason = await reasonAgainst(path);
    if (reason === null) found.usable.push({ name, path });
    else found.refused.push({ name, path, reason });
  }
  return found;
}

// --- internal ---

async function defaultLine(env: Env): Promise<Line> {
  try {
    const { path, bundled } = await resolveModelPath(undefined, { env });
    const { name } = await openModel(path);
    const reason = bundled ? null : await reasonAgainst(path);
    if (reason !== null) throw new BasedXLError("bad-model", `${path}: ${reason}`);
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

/** What BASEDXL_MODELS_DIR names; none where it is not set. */
function folderLines(env: Env): Line[] {
  const folders = modelFolders(undefined, env, { withHub: false });
  if (folders.length === 0) return [];
  const library = new Library(folders);
  const count = library.all().length;
  const text = `${count} files of models in ${folders.join(", ")}; basedxl models lists them`;
  const notes = library.warnings.slice(0, refusedMax).map((warning) => note("", warning));
  return [count > 0 ? ok("folders", text) : note("folders", text), ...notes];
}

/** null also where the cache does not name the current snapshot. */
function currentSnapshot(root: string): string | null {
  try {
    return snapshotOf(root);
  } catch {
    return null;
  }
}

function isSdxl(folder: string): boolean {
  const path = join(folder, "model_index.json");
  // A pipe in a shared cache would be waited for.
  if (fileProblem(path) !== null) return false;
  return /"_class_name"\s*:\s*"StableDiffusionXL/.test(textOf(path));
}

/** Why `sample` would refuse the model at `path`, without the path; null where it loads. */
async function reasonAgainst(path: string): Promise<string | null> {
  try {
    const model = await openModel(path);
    checkHasInput(model, null);
    const { weights, scheduler } = model;
    makeSchedule(samplerOfModel(scheduler).name, scheduler, { stepCount: 1 });
    for (const { files } of Object.values(weights)) files.forEach(readSafetensorsHeader);
    checkModel(nativeModelOf(model), model.sizeMultiple / model.vaeFactor);
    return null;
  } catch (error) {
    // Without the library no model loads: its own line has the reason.
    if (error instanceof BasedXLError && error.code === "setup") return null;
    return escaped((error as Error).message.replaceAll(`${path}/`, ""), 200);
  }
}
