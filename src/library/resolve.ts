/**
 * Models by name: `--model juggernaut`, `--lora sub/detail`. A path that exists wins; else the
 * name, with or without its ending, is looked up in the folders of models. Only the first bytes of
 * the file that is found are read.
 */
import { existsSync, readdirSync, realpathSync, statSync } from "node:fs";
import { basename, delimiter, dirname, join } from "node:path";
import { BasedXLError, escaped } from "../errors.ts";
import { hubCacheFolder } from "../hub/settings.ts";
import { sentenceOf, weightsProblem } from "../models/files.ts";
import { absolutePath, expandHome } from "../paths.ts";
import { nearestFew } from "../terminal/flags.ts";
import type { KindFolder, ModelKind } from "./kinds.ts";
import { kindFoldersOf } from "./layouts.ts";
import { type FoundModel, scanFolders, stemOf, unfinishedEnding } from "./scan.ts";

type Env = Record<string, string | undefined>;

/** The variable that names folders of models, with ":" between. */
const foldersVariable = "BASEDXL_MODELS_DIR";

/**
 * The folders of models, absolute: those of `option` (--models-dir), else of BASEDXL_MODELS_DIR;
 * then the cache of the Hugging Face hub, where there is one and `withHub` is not false.
 */
export function modelFolders(
  option: string | readonly string[] | undefined,
  env: Env = process.env,
  { withHub = true } = {},
): string[] {
  const given = [option ?? []].flat();
  const named = given.length > 0 ? given : [env[foldersVariable] ?? ""];
  const paths = named.flatMap((list) => list.split(delimiter));
  const hub = withHub ? hubCacheFolder(env) : null;
  return [
    ...paths.filter((path) => path !== "").map((path) => absolutePath(expandHome(path))),
    ...(hub !== null && existsSync(hub) ? [hub] : []),
  ];
}

/**
 * The absolute path of the model that `value` names. Throws "bad-model" where there is none, with
 * the nearest names, or more than one, and "bad-weights" for a file that holds no safetensors.
 */
export function resolveModelFile(
  kind: ModelKind,
  value: string,
  folders: readonly string[] = modelFolders(undefined),
): string {
  const what = `The ${nouns[kind][0]} ${shown(value)}`;
  const path = pathOf(kind, value);
  if (path !== null) return checkedFile(path);
  const library = new Library(folders);
  const found = isPathAlone(value) ? null : library.find(kind, value);
  if (found !== null) return checkedFile(found);
  throw new BasedXLError("bad-model", `${what} ${library.absence(kind, value)}`);
}

/** Whether the value can only be a path. */
export function isPathAlone(value: string): boolean {
  return /^(\/|~|\.\.?(\/|$))/.test(value);
}

/** Whether it is written as a file in a folder that is here: no id of the hub, but a slip. */
export function isBelowFolder(value: string): boolean {
  return value.split("/").length > 2 && existsSync(dirname(absolutePath(expandHome(value))));
}

/** The file or folder at the path `value`, absolute; null where there is none of the kind. */
export function pathOf(kind: ModelKind, value: string): string | null {
  const path = absolutePath(expandHome(value));
  const stat = lookUp(path, `The ${nouns[kind][0]} ${shown(value)}`);
  if (stat === undefined) return null;
  if (kind === "checkpoint" && basename(path) === "model_index.json") return dirname(path);
  if (!stat.isDirectory() || folderKinds.has(kind)) return path;
  // A folder that another program saved a LoRA in; others have the name by chance.
  return onlyWeights(siblingsOf(join(path, "*")));
}

/** `path`, unless its first bytes or its name show that it holds no weights that can be read. */
export function checkedFile(path: string): string {
  if (lookUp(path, shown(path))?.isDirectory()) return path;
  const problem = weightsProblem(path);
  if (problem === null) return path;
  throw new BasedXLError("bad-weights", `${escaped(path, 300)} ${sentenceOf(problem)}`);
}

/** The names in some folders of models, read once, when a name is first looked up. */
export class Library {
  /** About folders that cannot be read. */
  readonly warnings: string[] = [];
  private models: FoundModel[] | null = null;

  constructor(private readonly roots: readonly string[]) {}

  /** Everything that looks like a model. */
  all(): readonly FoundModel[] {
    if (this.models !== null) return this.models;
    const warn = (sentence: string) => void this.warnings.push(sentence);
    const folders = this.roots.flatMap((root) => kindFoldersOf(root, warn));
    // "any" folders come last: those of a kind inside them are walked by themselves.
    const ordered = [...folders.filter(({ kind }) => kind !== "any"), ...folders];
    this.models = scanFolders(ordered, warn);
    return this.models;
  }

  /** The path of the model of this name; null where there is none. Throws where there are two. */
  find(kind: ModelKind, value: string): string | null {
    const wanted = wantedName(value);
    const candidates = this.all().filter(({ folder }) => serves(folder, kind));
    const ranked = candidates.flatMap((model) => {
      const rank = rankOf(model, wanted);
      return rank === null ? [] : [{ model, rank }];
    });
    const best = Math.min(...ranked.map(({ rank }) => rank));
    const paths = ranked.filter(({ rank }) => rank === best).map(({ model }) => model.path);
    const distinct = [...new Map(paths.map((path) => [realPath(path), path])).values()];
    if (distinct.length <= 1) return distinct[0] ?? this.ofSnapshot(kind, wanted);
    const list = listed(distinct.map((path) => escaped(path, 300)));
    throw new BasedXLError(
      "bad-model",
      `The ${nouns[kind][0]} ${shown(value)} may be ${list}: name one by its path.`,
    );
  }

  /** What follows the name of a model that is not there, with near names and where it looked. */
  absence(kind: ModelKind, value: string): string {
    const unfinished = unfinishedBeside(value);
    if (unfinished !== null) return `is not there yet: ${unfinished} is an unfinished download.`;
    const inside = siblingsOf(join(value, "*")).filter((path) => safetensorsEnding.test(path));
    if (inside.length > 0) {
      const few = listed(inside.map((path) => escaped(path, 200)));
      return `is a folder of several files: name one of them, ${few}.`;
    }
    if (isPathAlone(value) || isBelowFolder(value)) {
      return `does not exist.${suggestion(siblingsOf(value), value)}`;
    }
    const { length } = this.roots;
    if (length === 0) {
      return (
        "does not exist, and no folder of models is named: --models-dir or the variable " +
        `${foldersVariable} names one.`
      );
    }
    const other = this.ofOtherKind(kind, value);
    if (other !== null) return other;
    const models = this.all().filter(({ folder }) => serves(folder, kind));
    const near = suggestion(models.map(shortName), wantedName(value));
    const places = this.roots.slice(0, 4).map((root) => escaped(root, 200));
    const more = length > places.length ? ` and ${length - places.length} more` : "";
    const warnings = this.warnings.slice(0, 2).map((warning) => ` ${warning}`);
    return [
      `is not in the folders of models.${near} Looked in ${places.join(", ")}${more}.`,
      ...warnings,
    ].join("");
  }

  /** Names that can be asked for, of a kind of folder or of all. */
  names(kind: string | undefined): string[] {
    const models = this.all().filter(
      ({ folder }) => kind === undefined || folder.kind === "any" || folder.kind === kind,
    );
    return [...new Set(models.map(shortName))];
  }

  /**
   * The files of embeddings by name, in lower case, with and without sub-folders, for words of
   * prompts. Only folders of embeddings count: a word must not find a checkpoint.
   */
  embeddingsByName(): ReadonlyMap<string, string> {
    const names = new Map<string, string>();
    for (const model of this.all()) {
      if (model.folder.kind !== "embedding" || unfinishedEnding.test(model.name)) continue;
      const name = stemOf(model.name).toLowerCase();
      for (const each of [name, basename(name)]) if (!names.has(each)) names.set(each, model.path);
    }
    return names;
  }

  // --- internal ---

  /** What a model of the name is that is in a folder of another kind; null where there is none. */
  private ofOtherKind(kind: ModelKind, value: string): string | null {
    const wanted = wantedName(value);
    for (const model of this.all()) {
      const own = model.folder.kind;
      if (!Object.hasOwn(nouns, own) || own === kind || rankOf(model, wanted) === null) continue;
      const [noun, flag] = nouns[own as ModelKind];
      const what = `is ${article(noun)}, not ${article(nouns[kind][0])}`;
      const how = flag === null ? "" : `; name it with ${flag}`;
      return `${what}: ${escaped(model.path, 300)}${how}.`;
    }
    return null;
  }

  /** The only weights in the hub's snapshot that is called `wanted`. */
  private ofSnapshot(kind: ModelKind, wanted: string): string | null {
    if (folderKinds.has(kind)) return null;
    const files = this.all().filter(({ folder }) => folder.prefix === wanted);
    return onlyWeights(files.map(({ path }) => path));
  }
}

// --- internal ---

const safetensorsEnding = /\.(safetensors|sft)$/i;

/** In sentences, and the flag that takes it. */
const nouns: Readonly<Record<ModelKind, readonly [noun: string, flag: string | null]>> = {
  checkpoint: ["model", "--model"],
  lora: ["LoRA", "--lora"],
  vae: ["VAE", "--vae"],
  taesd: ["TAESD", "--taesd"],
  embedding: ["embedding", "--embedding"],
  upscaler: ["upscaler", "--hires-upscaler"],
  controlnet: ["ControlNet", "--controlnet"],
  "ip-adapter": ["IP-Adapter", "--ip-adapter"],
  "clip-vision": ["image encoder", "--ip-encoder"],
};

/** Kinds that may be folders in diffusers' layout. */
const folderKinds: ReadonlySet<ModelKind> = new Set([
  ...(["checkpoint", "vae", "taesd", "controlnet", "clip-vision"] as const),
]);

function article(noun: string): string {
  return /^[aeiou]/.test(noun) ? `an ${noun}` : `a ${noun}`;
}

function shown(value: string): string {
  return `"${escaped(value, 300)}"`;
}

/** Whether the folder may hold such a model. */
export function serves({ kind }: KindFolder, wanted: ModelKind): boolean {
  // A1111's extension keeps both in its folder of ControlNets.
  const isShared = wanted === "ip-adapter" && kind === "controlnet";
  return kind === wanted || kind === "any" || isShared;
}

/** Names of Windows, and of A1111's texts, which put a hash behind: `name [0123456789]`. */
function wantedName(value: string): string {
  return value
    .trim()
    .replaceAll("\\", "/")
    .replace(/ \[[0-9a-f]{8,12}\]$/i, "");
}

/**
 * How well the name fits, 0 best; null where it does not. The whole name goes before its end,
 * equal letters before those of another case, safetensors before formats that are not read, and
 * files in folders before the hub's cache.
 */
function rankOf({ name, folder, isFolder }: FoundModel, wanted: string): number | null {
  const names = isFolder ? [name] : [name, stemOf(name)];
  const lower = wanted.toLowerCase();
  const fits = [
    names.includes(wanted),
    names.some((each) => each.endsWith(`/${wanted}`)),
    names.some((each) => each.toLowerCase() === lower),
    names.some((each) => each.toLowerCase().endsWith(`/${lower}`)),
  ].indexOf(true);
  if (fits < 0) return null;
  const isReadable = isFolder || safetensorsEnding.test(name);
  const place = folder.prefix === undefined ? 0 : 4;
  return fits + place + (isReadable ? 0 : unfinishedEnding.test(name) ? 16 : 8);
}

function shortName({ name, isFolder }: FoundModel): string {
  return isFolder ? name : stemOf(name);
}

/** The weights among `paths`, by the names that programs give them, or if there is one file. */
function onlyWeights(paths: readonly string[]): string | null {
  const files = paths.filter((path) => safetensorsEnding.test(path));
  const usual = /^(pytorch_lora_weights|adapter_model)\.safetensors$/;
  const [first, ...others] = files;
  const named = files.find((path) => usual.test(basename(path)));
  return named ?? (others.length === 0 ? (first ?? null) : null);
}

/** ` Did you mean a, b or c?`; names that contain the value are near too. */
function suggestion(names: readonly string[], value: string): string {
  const wanted = basename(value).toLowerCase();
  const distinct = [...new Set(names)];
  const byLetters = nearestFew(value, distinct, nearMax);
  const byLastPart = nearestFew(
    wanted,
    distinct.map((name) => basename(name)),
    nearMax,
  );
  const whole = byLastPart.flatMap(
    (part) => distinct.find((name) => basename(name) === part) ?? [],
  );
  const containing = distinct.filter(
    (name) => wanted.length >= 3 && name.toLowerCase().includes(wanted),
  );
  const near = [...new Set([...byLetters, ...whole, ...containing])].slice(0, nearMax);
  return near.length === 0
    ? ""
    : ` Did you mean ${listed(near.map((name) => escaped(name, 120)))}?`;
}

const nearMax = 3;

/** "a, b or c", of many the first four. */
function listed(texts: readonly string[]): string {
  const shownTexts =
    texts.length > 4 ? [...texts.slice(0, 4), `${texts.length - 4} others`] : texts;
  const last = shownTexts.at(-1) ?? "";
  return shownTexts.length < 2 ? last : `${shownTexts.slice(0, -1).join(", ")} or ${last}`;
}

/** Paths beside the path `value`, written as it is, sorted; none where they cannot be listed. */
function siblingsOf(value: string): string[] {
  try {
    const folder = dirname(value);
    const names = readdirSync(absolutePath(expandHome(folder))).sort();
    return names.map((name) => join(folder, name));
  } catch {
    return [];
  }
}

/** A file of the value's name that a download has not finished. */
function unfinishedBeside(value: string): string | null {
  const wanted = basename(value);
  return (
    siblingsOf(value).find((path) => {
      const name = basename(path);
      return unfinishedEnding.test(name) && name.replace(unfinishedEnding, "") === wanted;
    }) ?? null
  );
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

/** The entry at `path`, undefined if none. Throws with the system's reason if that fails. */
function lookUp(path: string, what: string) {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOTDIR" || code === "ENAMETOOLONG") return undefined;
    throw new BasedXLError("bad-model", `${what} cannot be opened (${escaped(message, 300)}).`);
  }
}
