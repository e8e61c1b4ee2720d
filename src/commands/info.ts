/**
 * `basedxl info FILE`: what an image or a model file says of itself.
 */
import { statSync } from "node:fs";
import { basename } from "node:path";
import { defineCommand } from "citty";
import { BasedXLError, escaped, escapedLines } from "../errors.ts";
import { imageSizeOf } from "../image/encoder.ts";
import { adapterHash, HashCache, shortHash } from "../library/hashes.ts";
import { describeModel } from "../library/list.ts";
import { type InspectedImage, inspectImage } from "../metadata.ts";
import { readSafetensorsHeader, type SafetensorsHeader } from "../models/safetensors-header.ts";
import { absolutePath } from "../paths.ts";
import { settingKeys } from "../settings/table.ts";
import { asField, formatSetting } from "../settings/values.ts";
import { createOutput, writeJson } from "../terminal/output.ts";
import { createStatusLine } from "../terminal/status.ts";
import { formatBytes } from "../terminal/units.ts";
import { infoFlags } from "./info-flags.ts";
import { runStoppable } from "./stoppable.ts";

export const infoCommand = defineCommand({
  meta: { name: "info", description: "Print what an image or a model file says of itself" },
  args: infoFlags,
  async run({ args }) {
    const { file, json = false, hash = true } = args;
    if (file === undefined) throw new BasedXLError("bad-option", "Name an image or a model file.");
    const output = createOutput({ verbose: false, quiet: false, json });
    const path = absolutePath(file);
    return await runStoppable(output, async (signal) => {
      const isModel = /\.(safetensors|sft)$/i.test(path);
      const facts = isModel ? await modelFacts(path, hash, signal) : await imageFacts(path);
      if (json) writeJson(facts.object);
      else process.stdout.write(`${escapedLines(facts.lines.join("\n"))}\n`);
    });
  },
});

// --- internal ---

interface Facts {
  /** For --json. */
  object: Record<string, unknown>;
  /** For people. */
  lines: string[];
}

async function imageFacts(path: string): Promise<Facts> {
  const image = inspectImage(path);
  const { format, texts, parameters, recipe, problems } = image;
  const { size: bytes } = statSync(path);
  const size = await imageSizeOf(path);
  const pixels = size === null ? "" : `${size.width}x${size.height}, `;
  const { settings = {}, model = null, vae = null, loras = [], warnings = [] } = recipe ?? {};
  const values = settingKeys.filter((key) => settings[key] !== undefined);
  const object = {
    ...{ path, kind: "image", format, width: size?.width ?? null, height: size?.height ?? null },
    ...{ bytes, tool: recipe?.tool ?? null },
    settings: Object.fromEntries(values.map((key) => [asField(key), jsonOf(settings[key])])),
    model: model && hintOf(model),
    vae: vae && hintOf(vae),
    loras: loras.map((lora) => ({
      ...hintOf(lora),
      ...{ scale: lora.scale, text_scale: lora.textScale },
    })),
    ...{ warnings, problems, texts: Object.fromEntries(texts) },
  };
  // A1111's text says it all, shorter than a list.
  const isPlain = parameters !== undefined && !/^\s*[{[]/.test(parameters);
  const list = values.map(
    (key) => `${asField(key)}: ${formatSetting(key, settings[key] as never)}`,
  );
  const what = isPlain ? [parameters] : [...list, ...modelLines(image)];
  const lines = [
    `${path}: ${format}, ${pixels}${formatBytes(bytes)}`,
    recipe === null ? "It says nothing of how it was made." : `Written by ${recipe.tool}.`,
    ...(what.length > 0 ? ["", ...what] : []),
    ...othersOf(image),
  ];
  return { object, lines };
}

/** 64 bits do not fit into a JSON number. */
function jsonOf(value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

function hintOf({ name, digits = null }: { name: string; digits?: string | null | undefined }) {
  return { name, hash: digits };
}

/** Files that A1111's text would have. */
function modelLines({ recipe }: InspectedImage): string[] {
  if (recipe === null) return [];
  const { model, vae, loras } = recipe;
  return [
    ...(model === null ? [] : [`model: ${model.name}`]),
    ...(vae === null ? [] : [`vae: ${vae.name}`]),
    ...loras.map(({ name, scale, textScale }) => `lora: ${name} at ${scale}, ${textScale}`),
  ];
}

function othersOf({ texts, recipe, problems }: InspectedImage): string[] {
  const sizes = [...texts].map(([name, text]) => `${name} (${formatBytes(text.length)})`);
  const lines = [
    ...(sizes.length === 0 ? [] : [`Texts in the file: ${sizes.join(", ")}.`]),
    ...problems.map((problem) => `Not read: ${problem}.`),
    ...(recipe?.warnings ?? []),
  ];
  return lines.length === 0 ? [] : ["", ...lines];
}

async function modelFacts(path: string, hashes: boolean, signal: AbortSignal): Promise<Facts> {
  const header = readSafetensorsHeader(path);
  const folder = { path, kind: "any" as const };
  const name = basename(path);
  const { kind, detail } = await describeModel({ path, name, folder, isFolder: false });
  const hash = hashes ? await hashesOf(header, signal) : null;
  const types = dtypesOf(header);
  const metadata = Object.fromEntries(header.metadata);
  const words = trainedWords(header);
  const object = {
    ...{ path, kind, detail, bytes: header.fileBytes, tensors: header.tensors.size },
    ...{ dtypes: Object.fromEntries(types), ...hash, words: Object.fromEntries(words), metadata },
  };
  const shown = [...header.metadata].filter(([key]) => !hiddenKeys.has(key));
  const lines = [
    `${path}: ${[kind, detail].filter(Boolean).join(", ")}`,
    `${formatBytes(header.fileBytes)}, ${header.tensors.size} tensors: ` +
      types.map(([type, count]) => `${count} ${type}`).join(", "),
    ...(hash === null
      ? []
      : [`AutoV2 ${hash.hash}, AutoV3 ${hash.auto_v3}`, `SHA-256 ${hash.sha256}`]),
    ...(words.length === 0
      ? []
      : ["", `Trained with: ${words.slice(0, wordCountMax).map(wordText).join(", ")}`]),
    ...(shown.length > 0 ? [""] : []),
    ...shown.slice(0, keyCountMax).map(([key, value]) => `${key}: ${oneLine(value)}`),
    ...(shown.length > keyCountMax ? [`... and ${shown.length - keyCountMax} more`] : []),
  ];
  return { object, lines };
}

const wordCountMax = 20;
const keyCountMax = 200;
/** Lists of every image of the training, too long for people. */
const hiddenKeys = new Set([
  "ss_tag_frequency",
  "ss_dataset_dirs",
  "ss_bucket_info",
  "ss_datasets",
]);

function wordText([word, count]: readonly [string, number]): string {
  return `${word} (${count})`;
}

function oneLine(value: string): string {
  return escaped(value.replace(/\s*\n\s*/g, " "), 200);
}

async function hashesOf({ path, fileBytes, headerBytes }: SafetensorsHeader, signal: AbortSignal) {
  const cache = new HashCache();
  const status = createStatusLine();
  const onProgress = (bytes: number) => {
    status.show(`Hashing, ${Math.floor((100 * bytes) / fileBytes)} %`);
  };
  try {
    const sha256 = await cache.hashOf(path, { signal, onProgress });
    const tensors = await cache.hashOf(path, { signal, onProgress, start: 8 + headerBytes });
    return { hash: shortHash(sha256), auto_v3: adapterHash(tensors), sha256 };
  } finally {
    status.clear();
    cache.save();
  }
}

/** How many tensors have each type, the most first. */
function dtypesOf({ tensors }: SafetensorsHeader): [string, number][] {
  const counts = new Map<string, number>();
  for (const { dtype } of tensors.values()) counts.set(dtype, (counts.get(dtype) ?? 0) + 1);
  return [...counts].sort(([, a], [, b]) => b - a);
}

/** Words of the captions by how often they came, of all folders of images; kohya's scripts. */
function trainedWords({ metadata }: SafetensorsHeader): [string, number][] {
  const counts = new Map<string, number>();
  try {
    const folders: unknown = JSON.parse(metadata.get("ss_tag_frequency") ?? "{}");
    for (const words of Object.values(folders as object)) {
      for (const [word, count] of Object.entries(words as object)) {
        const name = word.trim();
        if (typeof count === "number") counts.set(name, (counts.get(name) ?? 0) + count);
      }
    }
  } catch {}
  return [...counts].sort(([, a], [, b]) => b - a);
}
