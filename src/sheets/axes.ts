/**
 * The axes of --xyz: which setting each changes, its values, and the cells that they make. A value
 * is checked as its flag is; what the whole request refuses is found when the cells are planned.
 */
import { badOption, escaped } from "../errors.ts";
import type { SampleOptions } from "../settings/options.ts";
import { type SettingKey, settingKeys, settingOf, settings } from "../settings/table.ts";
import { parseSetting } from "../settings/values.ts";
import { suggestion } from "../terminal/flags.ts";
import { expandRange, readAxisTexts } from "./values.ts";

export interface Axis {
  /** As it was typed. */
  name: string;
  /** As A1111 names it. */
  type: string;
  values: readonly AxisValue[];
  /** How much a change costs: axes with more change less often. */
  cost: number;
  /** The settings that its values decide. */
  keys: readonly SettingKey[];
  /** Whether it changes what another axis may set, and is applied after it. */
  isEdit?: true;
}

interface AxisValue {
  text: string;
  /** Beside the row or column of the value. */
  label: string;
  apply(options: SampleOptions): SampleOptions;
}

/** One image of the sheet. */
export interface Cell {
  /** Indices of its values, of x, y and z. */
  place: readonly [x: number, y: number, z: number];
  /** The values as they were typed, by the names of the axes. */
  values: Record<string, string>;
  options: SampleOptions;
}

/** Reads --xyz. Throws "bad-option" in a sentence with the axis and the value. */
export function parseAxes(text: string): Axis[] {
  const texts = readAxisTexts(text);
  if (texts.length === 0) throw badOption("--xyz has no axis: write NAME=VALUE,VALUE;NAME=VALUE.");
  if (texts.length > 3) {
    throw badOption(`--xyz has ${texts.length} axes: a sheet has three at most, x, y and z.`);
  }
  const axes = texts.map(({ name, values }) => axisOf(name, values));
  const twice = axes.find(({ type }, i) => axes.findIndex((axis) => axis.type === type) < i);
  if (twice) throw badOption(`--xyz has the axis ${escaped(twice.name, 40)} twice.`);
  for (const [i, axis] of axes.entries()) {
    const other = axes.slice(0, i).find(({ keys }) => keys.some((key) => axis.keys.includes(key)));
    if (other === undefined) continue;
    const names = [other, axis].map(({ name }) => escaped(name, 40));
    throw badOption(`--xyz has the axes ${names.join(" and ")}, which set the same: keep one.`);
  }
  return axes;
}

/** The cells in the order of the sheet: x runs first. Throws where a value finds nothing. */
export function cellsOf(axes: readonly Axis[], options: SampleOptions): Cell[] {
  const [xs, ys, zs] = [0, 1, 2].map((i) => axes[i]?.values.length ?? 1) as [
    number,
    number,
    number,
  ];
  const inOrder = [...axes.keys()].sort(
    (a, b) => Number(axes[a]!.isEdit ?? false) - Number(axes[b]!.isEdit ?? false),
  );
  return Array.from({ length: xs * ys * zs }, (_, index) => {
    const place = [index % xs, Math.floor(index / xs) % ys, Math.floor(index / (xs * ys))] as const;
    const chosen = axes.map(({ values }, i) => values[place[i]!]!);
    const values = Object.fromEntries(axes.map(({ name }, i) => [name, chosen[i]!.text]));
    const own = inOrder.reduce((all, i) => chosen[i]!.apply(all), options);
    return { place, values, options: own };
  });
}

/** The same cells, so that what is expensive changes least. */
export function inRunOrder(axes: readonly Axis[], cells: readonly Cell[]): Cell[] {
  const order = [...axes.keys()].sort((a, b) => axes[b]!.cost - axes[a]!.cost);
  return [...cells].sort((a, b) => {
    const first = order.find((axis) => a.place[axis] !== b.place[axis]);
    return first === undefined ? 0 : a.place[first]! - b.place[first]!;
  });
}

/** `X Type: Steps, X Values: "10, 20"`, as A1111 writes it behind the parameters of a grid. */
export function describeAxes(axes: readonly Axis[]): string {
  const parts = axes.flatMap(({ type, values }, i) => {
    const letter = "XYZ"[i]!;
    const texts = values.map(({ text }) => (/[",]/.test(text) ? JSON.stringify(text) : text));
    return [`${letter} Type: ${type}`, `${letter} Values: ${JSON.stringify(texts.join(", "))}`];
  });
  return ["Script: X/Y/Z plot", ...parts].join(", ");
}

// --- internal ---

/** Short names, and those of A1111 without case and spaces, for flags. */
const shortNames: Readonly<Record<string, SettingKey | undefined>> = {
  guidance: "guidanceScale",
  sampler: "scheduler",
  scheduletype: "sigmas",
  negative: "negativePrompt",
  lora: "loras",
};

/** A1111's names of types; others are named by their flags. */
const typeNames: Partial<Record<SettingKey, string>> = {
  seed: "Seed",
  stepCount: "Steps",
  guidanceScale: "CFG Scale",
  scheduler: "Sampler",
  sigmas: "Schedule type",
  clipSkip: "Clip skip",
  eta: "Eta",
};

/** Changes of weights, then of shapes, then of captured graphs; anything else costs nothing. */
const costs: Partial<Record<SettingKey, number>> = {
  loras: 4,
  recipe: 4,
  prompt: 2,
  width: 3,
  height: 3,
  syncMode: 1,
  splitBatch: 1,
  guidanceScale: 1,
};

function axisOf(typed: string, texts: string[]): Axis {
  const bare = typed.toLowerCase().replace(/[\s_-]/g, "");
  if (["sr", "s/r", "promptsr", "prompts/r"].includes(bare)) return searchAxis(typed, texts);
  if (bare === "lorascale" || bare === "loraweight") return loraScaleAxis(typed, texts);
  if (bare === "size") return sizeAxis(typed, texts);
  const key = keyNamed(typed, bare);
  const { kind, flag } = settingOf(key);
  const isNumber = kind === "whole" || kind === "number" || kind === "seed";
  const all = isNumber ? texts.flatMap((text) => expandRange(text, kind !== "number")) : texts;
  const values = all.map((text) => {
    const isNone = key === "loras" && text === "none";
    const value = isNone ? [] : parseSetting(key, text, () => `--xyz ${escaped(typed, 40)}`);
    return {
      text,
      label: `${typed}: ${text}`,
      apply: (options: SampleOptions): SampleOptions =>
        key === "seed"
          ? { ...options, seeds: [value as bigint], seedIsRandom: false }
          : { ...options, [key]: value },
    };
  });
  return { name: typed, type: typeNames[key] ?? flag, values, cost: costs[key] ?? 0, keys: [key] };
}

function keyNamed(typed: string, plain: string): SettingKey {
  const bare = plain.replace(/^cfg/, "guidance");
  const names = new Map<string, SettingKey>();
  for (const key of settingKeys) {
    const { flag, aliases = [] } = settingOf(key);
    for (const name of [flag, ...aliases, key]) {
      names.set(name.toLowerCase().replaceAll("-", ""), key);
    }
  }
  const key = shortNames[bare] ?? names.get(bare);
  if (key === undefined) {
    const near = suggestion(typed, [
      ...Object.keys(shortNames),
      ...requestFlags(),
      "sr",
      "size",
      "lora-scale",
    ]);
    const named = near === "" ? " They are named as flags are: steps, guidance or sampler." : near;
    throw badOption(`--xyz has no axis ${JSON.stringify(escaped(typed, 40))}.${named}`);
  }
  const isOfImages = settings[key].scope === "request" && key !== "imageCount";
  if (isOfImages && key !== "batchSize") return key;
  throw badOption(`--xyz cannot change --${settings[key].flag} from image to image.`);
}

function requestFlags(): string[] {
  return settingKeys
    .filter((key) => settings[key].scope === "request")
    .flatMap((key) => [settingOf(key).flag, ...(settingOf(key).aliases ?? [])]);
}

/** Prompt S/R: the first text is replaced by each. */
function searchAxis(name: string, texts: string[]): Axis {
  const search = texts[0]!;
  const values = texts.map((text) => ({
    text,
    label: text === "" ? "(nothing)" : text,
    apply(options: SampleOptions): SampleOptions {
      const { prompt, negativePrompt } = options;
      const replace = <T>(whole: T) =>
        typeof whole === "string" ? (whole.replaceAll(search, () => text) as T) : whole;
      const found = [prompt, negativePrompt].some(
        (whole) => typeof whole === "string" && whole.includes(search),
      );
      if (search === "" || !found) {
        throw badOption(
          `--xyz ${name} did not find ${JSON.stringify(escaped(search, 80))} in the prompt or ` +
            "the negative prompt.",
        );
      }
      return { ...options, prompt: replace(prompt), negativePrompt: replace(negativePrompt) };
    },
  }));
  // A prompt may name LoRAs in tags.
  const cost = search.includes("<lora:") ? 4 : 2;
  return { name, type: "Prompt S/R", values, cost, keys: [], isEdit: true };
}

function loraScaleAxis(name: string, texts: string[]): Axis {
  const values = texts
    .flatMap((text) => expandRange(text, false))
    .map((text) => ({
      text,
      label: `${name}: ${text}`,
      apply(options: SampleOptions): SampleOptions {
        if (options.loras.length === 0) throw badOption(`--xyz ${name} needs --lora.`);
        const scale = Number(text);
        const scaled = options.loras.map(({ file }) => `${file}:${text}`);
        if (text === "" || Number.isNaN(scale)) {
          throw badOption(
            `--xyz ${name} must be a number, not ${JSON.stringify(escaped(text, 40))}.`,
          );
        }
        const loras = parseSetting("loras", scaled.join("\0"), () => `--xyz ${name}`);
        return { ...options, loras };
      },
    }));
  return { name, type: "LoRA scale", values, cost: 4, keys: [], isEdit: true };
}

/** `512x768`. */
function sizeAxis(name: string, texts: string[]): Axis {
  const values = texts.map((text) => {
    const [, width, height] = /^(\d{1,5})\s*[xX×]\s*(\d{1,5})$/.exec(text) ?? [];
    if (width === undefined || height === undefined) {
      const given = JSON.stringify(escaped(text, 40));
      throw badOption(`--xyz ${name} must be WIDTHxHEIGHT, such as 1024x768, not ${given}.`);
    }
    const size = { width: Number(width), height: Number(height) };
    return {
      text,
      label: `${name}: ${text}`,
      apply: (options: SampleOptions): SampleOptions => ({ ...options, ...size }),
    };
  });
  return { name, type: "Size", values, cost: 3, keys: ["width", "height"] };
}
