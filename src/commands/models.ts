/**
 * `basedxl models`: the models in folders of models, by kind, with sizes and hashes. What cannot be
 * read is listed with the reason, so that one bad file hides no other.
 */
import { existsSync, realpathSync } from "node:fs";
import { defineCommand } from "citty";
import { BasedXLError, cancelled, escaped } from "../errors.ts";
import { HashCache, shortHash } from "../library/hashes.ts";
import { listedKinds } from "../library/kinds.ts";
import { describeModel, type ListedModel } from "../library/list.ts";
import { Library, modelFolders } from "../library/resolve.ts";
import type { Sha256Options } from "../library/sha256.ts";
import { listSeparator, suggestion } from "../terminal/flags.ts";
import { createOutput, writeJson } from "../terminal/output.ts";
import { createStatusLine } from "../terminal/status.ts";
import { modelsFlags } from "./models-flags.ts";
import { type ModelRow, renderModels } from "./models-table.ts";
import { runStoppable } from "./stoppable.ts";

export const modelsCommand = defineCommand({
  meta: { name: "models", description: "List the models in folders of models" },
  args: modelsFlags,
  async run({ args }) {
    const output = createOutput({ verbose: false, quiet: false, json: args.json === true });
    const folders = modelFolders(args["models-dir"]?.split(listSeparator));
    if (args["models-dir"] !== undefined) checkFolders(folders);
    const library = new Library(folders);
    checkKind(args.kind);
    if (args.names) return printNames(library, args.kind);
    return await runStoppable(output, async (signal) => {
      const models = await listOf(library, args.kind, signal);
      const rows = await withHashes(models, args.hash !== false, signal);
      if (args.json) {
        const { warnings } = library;
        writeJson({ models: rows.map(factsOf), folders, warnings });
        return;
      }
      for (const warning of library.warnings) output.log.warn(warning);
      const { columns, isTTY } = process.stdout;
      process.stdout.write(renderModels(rows, folders, isTTY ? columns : null));
    });
  },
});

// --- internal ---

/** Between two writes of the cache of hashes. */
const saveMsMin = 5000;

function checkKind(kind: string | undefined): void {
  if (kind === undefined || (listedKinds as readonly string[]).includes(kind)) return;
  const hint = suggestion(kind, listedKinds);
  throw new BasedXLError(
    "bad-option",
    `--kind must be one of ${listedKinds.join(", ")}, not "${kind}".${hint}`,
  );
}

/** A folder of the variable may be a disk that is not there; one of the flag is a slip. */
function checkFolders(folders: readonly string[]): void {
  for (const folder of folders) {
    if (existsSync(folder)) continue;
    throw new BasedXLError(
      "bad-option",
      `--models-dir ${escaped(folder, 300)} does not exist; name a folder, or an ` +
        "extra_model_paths.yaml.",
    );
  }
}

/** Only names that can stand on a line; `kind` is that of the folder. */
function printNames(library: Library, kind: string | undefined): number {
  const names = library.names(kind).filter((name) => !/\p{Cc}/u.test(name));
  process.stdout.write(names.map((name) => `${name}\n`).join(""));
  return 0;
}

async function listOf(
  library: Library,
  kind: string | undefined,
  signal: AbortSignal,
): Promise<ListedModel[]> {
  const status = createStatusLine();
  const models: ListedModel[] = [];
  for (const [index, found] of library.all().entries()) {
    if (signal.aborted) break;
    status.show(`Reading ${index + 1} of ${library.all().length}: ${found.name}`);
    models.push(await describeModel(found));
  }
  status.clear();
  if (signal.aborted) throw cancelled("Stopped before all files were read.");
  return models.filter((model) => kind === undefined || model.kind === kind);
}

/** Hashes one file after the other; on a terminal with what is being done. */
async function withHashes(
  models: readonly ListedModel[],
  isWanted: boolean,
  signal: AbortSignal,
): Promise<ModelRow[]> {
  if (!isWanted) return models.map((model) => ({ ...model, sha256: null }));
  const status = createStatusLine();
  const cache = new HashCache();
  const rows: ModelRow[] = [];
  let savedMs = performance.now();
  try {
    for (const [index, model] of models.entries()) {
      const onProgress = (bytes: number) => {
        const percent = `${Math.floor((100 * bytes) / model.bytes)} %`;
        status.show(`Hashing ${index + 1} of ${models.length}, ${percent}: ${model.name}`);
      };
      rows.push({ ...model, sha256: await hashOf(cache, model, { onProgress, signal }) });
      if (performance.now() - savedMs < saveMsMin) continue;
      cache.save();
      savedMs = performance.now();
    }
    return rows;
  } finally {
    status.clear();
    cache.save();
  }
}

/** null for folders, and for files that cannot be read. */
async function hashOf(
  cache: HashCache,
  { path, isFolder, problem }: ListedModel,
  options: Sha256Options,
): Promise<string | null> {
  if (isFolder || problem !== null) return null;
  try {
    return await cache.hashOf(realpathSync(path), options);
  } catch (error) {
    if (error instanceof BasedXLError) throw error;
    return null;
  }
}

function factsOf({ name, kind, detail, bytes, sha256, path, problem }: ModelRow) {
  const hash = sha256 === null ? null : shortHash(sha256);
  return { name, kind, detail, bytes, hash, sha256, path, problem };
}
