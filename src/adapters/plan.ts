/**
 * The LoRAs of a request: names found, files read and matched with the model, the same file twice
 * made one, and everything that the user should know of them.
 */
import { statSync } from "node:fs";
import { basename } from "node:path";
import { BasedXLError, escaped } from "../errors.ts";
import { sampleOf } from "../models/file-sample.ts";
import type { Model } from "../models/model.ts";
import type { Adapter, AdapterTarget } from "../native/adapters.ts";
import { type LoraChoice, loraCountMax } from "../settings/lora.ts";
import { type AdapterFile, readAdapterFile } from "./file.ts";
import { describeRecipe, differencesFrom, type RecipeRequest, recipeOf } from "./recipes.ts";
import { adaptableModelOf } from "./weights.ts";

/** A LoRA of one image. */
export interface PlannedLora {
  /** Absolute. */
  path: string;
  name: string;
  /** Factors of the UNet's and the text encoders' changes. */
  scale: number;
  textScale: number;
  file: AdapterFile;
}

/** Finds the file for a path or name. */
type FindLora = (file: string) => string;

/** Plans the LoRAs of one request: equal choices give the same array. */
export class LoraPlanner {
  private readonly sets = new Map<string, readonly PlannedLora[]>();
  private readonly files = new Map<string, AdapterFile>();
  private readonly idle = new Map<string, string>();

  constructor(
    private readonly model: Model,
    private readonly find: FindLora,
  ) {}

  /** Throws "bad-option" for a name that there is not, "bad-weights" for a file that is no LoRA. */
  plan(choices: readonly LoraChoice[]): readonly PlannedLora[] {
    const byPath = new Map<string, PlannedLora>();
    for (const { file: named, scale = 1, textScale = scale } of choices) {
      const path = this.find(named);
      const before = byPath.get(path);
      const file = before?.file ?? this.read(path);
      byPath.set(path, {
        ...{ path, name: file.name, file },
        scale: sumOf(before?.scale ?? 0, scale),
        textScale: sumOf(before?.textScale ?? 0, textScale),
      });
    }
    const loras: PlannedLora[] = [];
    for (const lora of byPath.values()) {
      if (targetsOf(lora).length > 0) loras.push(lora);
      else this.idle.set(lora.path, idleWarning(lora));
    }
    if (loras.length > loraCountMax) {
      throw new BasedXLError(
        "bad-option",
        `An image takes ${loraCountMax} LoRAs at most, those of tags in its prompt included, \
not ${loras.length}.`,
      );
    }
    const key = JSON.stringify(loras.map((lora) => [lora.path, lora.scale, lora.textScale]));
    const known = this.sets.get(key);
    if (known !== undefined) return known;
    this.sets.set(key, loras);
    return loras;
  }

  /** All LoRAs of the request, each file and its scales once, in the order of their first use. */
  all(): PlannedLora[] {
    const loras = new Map<string, PlannedLora>();
    for (const set of this.sets.values()) {
      for (const lora of set) loras.set(`${lora.path} ${lora.scale} ${lora.textScale}`, lora);
    }
    return [...loras.values()];
  }

  /** A sentence for each file that changes nothing of some image. */
  idleWarnings(): string[] {
    return [...this.idle.values()];
  }

  private read(path: string): AdapterFile {
    const known = this.files.get(path);
    if (known !== undefined) return known;
    const file = readCached(path, this.model);
    this.files.set(path, file);
    return file;
  }
}

/** The weights that a LoRA changes at its scales: a factor of 0 leaves them alone. */
export function targetsOf({ file, scale, textScale }: PlannedLora): AdapterTarget[] {
  return file.targets.filter(({ component }) => (component === "unet" ? scale : textScale) !== 0);
}

function idleWarning({ name, scale, textScale, file }: PlannedLora): string {
  const inUnet = file.targets.some(({ component }) => component === "unet");
  const inText = file.targets.some(({ component }) => component !== "unet");
  const part = inUnet ? "UNet" : "text encoders";
  const why = inUnet && inText ? "" : `it has weights of the ${part} alone, and `;
  return `The LoRA ${escaped(name, 100)} changes nothing: ${why}the scales are ${scale} for the \
UNet and ${textScale} for the text encoders.`;
}

/** The LoRAs in the native library's terms. */
export function adaptersOf(loras: readonly PlannedLora[]): Adapter[] {
  return loras.map((lora) => {
    const { path, scale: unetScale, textScale } = lora;
    return { path, unetScale, textScale, targets: targetsOf(lora) };
  });
}

/** What the user should know of a file, one sentence each. */
export function warningsOf({ name, file }: PlannedLora, request: RecipeRequest): string[] {
  const shown = escaped(name, 100);
  const warnings: string[] = [];
  const { unmatched, namedTwice } = file;
  if (unmatched.length > 0) {
    const [first, second, third] = unmatched.map((key) => escaped(key, 100));
    const names = [first, second, third].filter((each) => each !== undefined).join(", ");
    const more = unmatched.length > 3 ? ` and ${unmatched.length - 3} more` : "";
    warnings.push(
      `${unmatched.length} of ${file.header.tensors.size} tensors of the LoRA ${shown} change \
nothing of this model and are ignored: ${names}${more}.`,
    );
  }
  if (namedTwice > 0) {
    warnings.push(
      `The LoRA ${shown} names ${namedTwice} modules twice, by diffusers' and by the original \
names: those of diffusers count.`,
    );
  }
  const recipe = recipeOf(namesOf(file));
  const differences = recipe === null ? [] : differencesFrom(recipe, request);
  if (recipe !== null && differences.length > 0) {
    warnings.push(
      `The LoRA ${shown} is made for other settings than this request's ${differences.join(", ")}: \
${describeRecipe(recipe)}.`,
    );
  }
  return warnings;
}

/** What a LoRA is and does, as in "anime at 0.8: changes 722 weights of the UNet". */
export function describeLora(lora: PlannedLora): string {
  const { name, scale, textScale, file } = lora;
  const scales = scale === textScale ? `${scale}` : `${scale}, text encoders ${textScale}`;
  const targets = targetsOf(lora);
  const inUnet = targets.filter(({ component }) => component === "unet").length;
  const inText = targets.length - inUnet;
  const counts = [
    ...(inUnet > 0 ? [`${weights(inUnet)} of the UNet`] : []),
    ...(inText > 0 ? [`${weights(inText)} of the text encoders`] : []),
  ];
  const recipe = recipeOf(namesOf(file));
  const wants = recipe === null ? "" : `; made for ${describeRecipe(recipe)}`;
  return `${escaped(name, 100)} at ${scales}: changes ${counts.join(" and ")}${wants}`;
}

/**
 * Whether a LoRA, or the model by its own name, is made for the recipe of that title or one that
 * begins like it.
 */
export function isMadeFor(title: string, loras: readonly PlannedLora[], model: Model): boolean {
  const files = [...loras.map(({ file }) => namesOf(file)), [model.name, basename(model.path)]];
  return files.some((names) => recipeOf(names)?.title.startsWith(title));
}

/** A text that is the same for the same LoRAs, whatever their paths are, for other processes. */
export function fingerprintOf(loras: readonly PlannedLora[]): string {
  return loras
    .map(({ file, scale, textScale }) => {
      const { path, tensors, metadata, fileBytes } = file.header;
      // Alphas are not in the header, and may be between the samples.
      const factors = file.targets.map((target) => target.scale);
      const text = JSON.stringify([[...tensors], [...metadata], factors, sampleOf(path)]);
      const sha256 = new Bun.CryptoHasher("sha256").update(text).digest("hex");
      return `${fileBytes}:${sha256.slice(0, 12)}:${scale}:${textScale}`;
    })
    .join(" ");
}

// --- internal ---

/** Without what binary fractions leave: 0.1 + 0.2 is 0.3. */
function sumOf(a: number, b: number): number {
  return Number((a + b).toPrecision(12));
}

function weights(count: number): string {
  return count === 1 ? "1 weight" : `${count} weights`;
}

interface CachedFile {
  stamp: string;
  file: AdapterFile;
}

/** Files that were matched with a model lately: a pipeline reads a file once. */
const cache = new WeakMap<Model, Map<string, CachedFile>>();
const cachedFilesMax = 64;

function readCached(path: string, model: Model): AdapterFile {
  const files = cache.get(model) ?? new Map<string, CachedFile>();
  cache.set(model, files);
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
  const stamp = `${stat?.ino} ${stat?.size} ${stat?.mtimeNs}`;
  const known = files.get(path);
  if (known?.stamp === stamp) return known.file;
  const file = readAdapterFile(path, adaptableModelOf(model));
  if (files.size >= cachedFilesMax) files.delete([...files.keys()][0]!);
  files.set(path, { stamp, file });
  return file;
}

/** What the file is called: its name, and names in its header. */
function namesOf({ name, header }: AdapterFile): string[] {
  const inHeader = ["ss_output_name", "modelspec.title"].map((key) => header.metadata.get(key));
  return [name, ...inHeader.filter((each) => each !== undefined)];
}
