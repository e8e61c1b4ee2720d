/**
 * What A1111, ComfyUI and diffusers decide differently: one row per tool. `--compat` takes a row;
 * every value is also a setting of its own, and one that is given goes before the row.
 */
import type { Flavour, SigmaKind } from "../samplers/names.ts";
import { automaticSigmas, type Scheduler } from "./samplers.ts";

/** The default first. */
export const compatNames = ["diffusers", "a1111", "comfyui"] as const;
export type Compat = (typeof compatNames)[number];

/** Values of the settings of the same names. */
interface CompatSettings {
  promptSyntax: "plain" | "a1111" | "comfyui";
  emphasis: "original";
  emptyNegative: "auto" | "zeros" | "encode";
  rng: "cpu" | "cuda";
  noiseOrder: "image" | "batch";
  stepRng: "same" | "cpu" | "cuda";
}

/** A sampler and its noise levels. */
interface CompatSampling {
  /** Where no sampler is named; null for the model's own. */
  scheduler: Scheduler | null;
  /** Of a sampler of which only the name is given; null for those of the model's config. */
  sigmas: ((scheduler: Scheduler) => SigmaKind) | null;
}

/**
 * Sources: diffusers StableDiffusionXLPipeline; AUTOMATIC1111 modules/sd_samplers_kdiffusion.py
 * (Karras and exponential where the schedule type is "Automatic"), shared_options.py, rng.py;
 * ComfyUI comfy/samplers.py and comfy/sample.py, and its default workflow.
 */
const rows: Readonly<Record<Compat, CompatSettings & CompatSampling>> = {
  diffusers: {
    promptSyntax: "plain",
    emphasis: "original",
    emptyNegative: "auto",
    rng: "cpu",
    noiseOrder: "image",
    stepRng: "same",
    scheduler: null,
    sigmas: null,
  },
  a1111: {
    promptSyntax: "a1111",
    emphasis: "original",
    emptyNegative: "zeros",
    rng: "cuda",
    noiseOrder: "image",
    stepRng: "same",
    scheduler: "dpmpp_2m",
    sigmas: automaticSigmas,
  },
  comfyui: {
    promptSyntax: "comfyui",
    emphasis: "original",
    emptyNegative: "encode",
    rng: "cpu",
    noiseOrder: "batch",
    stepRng: "cuda",
    scheduler: "euler",
    sigmas: () => "normal",
  },
};

/** The settings that a tool decides, in the order of the documentation. */
export const compatKeys = [
  ...(["promptSyntax", "emphasis", "emptyNegative"] as const),
  ...(["rng", "noiseOrder", "stepRng"] as const),
] as const;
export type CompatKey = (typeof compatKeys)[number];

/** Settings as they were given, with those of the tool for the rest. */
export function withCompat<Given extends { compat: Compat }>(
  given: Given,
): Given & { [Key in CompatKey]: CompatSettings[Key] } {
  const row = rows[given.compat];
  const missing = compatKeys.filter((key) => (given as Partial<CompatSettings>)[key] === undefined);
  return { ...given, ...Object.fromEntries(missing.map((key) => [key, row[key]])) } as never;
}

/** What the tool decides where the setting is not given. */
export function compatDefault<Key extends CompatKey>(
  compat: Compat,
  key: Key,
): CompatSettings[Key] {
  return rows[compat][key];
}

/** The sampler of a request that names none; null for the model's own. */
export function compatScheduler(compat: Compat): Scheduler | null {
  return rows[compat].scheduler;
}

/** Whose formulas samplers have. */
export function flavourOf(compat: Compat): Flavour {
  return compat === "comfyui" ? "kdiffusion" : compat;
}

/** The noise levels of a sampler of which only the name is given; undefined for the config's. */
export function compatSigmas(compat: Compat, scheduler: Scheduler): SigmaKind | undefined {
  return rows[compat].sigmas?.(scheduler);
}

/** The rows for `--help`: settings down, tools across. */
export const compatLines = [
  ["flag", ...compatNames],
  ...compatKeys.map((key) => [flagOf(key), ...compatNames.map((name) => rows[name][key])]),
]
  .map(([flag = "", ...values]) => {
    return `${flag.padEnd(19)}${values.map((each) => each.padEnd(11)).join("")}`.trimEnd();
  })
  .join("\n");

// --- internal ---

/** A flag's name without dashes: the table of settings has the same, which a test compares. */
function flagOf(key: CompatKey): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
