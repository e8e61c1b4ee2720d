/**
 * What an image says of how it was made, in the settings of this program, before files are looked
 * up. What cannot be taken over is a warning, one sentence each.
 */
import { BasedXLError, escaped } from "../errors.ts";
import { hasSigmas } from "../schedule.ts";
import { compatScheduler, flavourOf } from "../settings/compat.ts";
import {
  type Compat,
  type Scheduler,
  type SigmaKind,
  samplerNamed,
  type TimestepSpacing,
} from "../settings/names.ts";
import {
  type GivenSettings,
  type SettingKey,
  settings as settingsTable,
} from "../settings/table.ts";
import { parseSetting } from "../settings/values.ts";
import { wordsOf } from "./foreign-json.ts";

/** A file of models, as images know it. */
export interface FileHint {
  name: string;
  /** The first digits of a hash, 8 or more. */
  digits?: string | undefined;
}

interface LoraHint extends FileHint {
  scale: number;
  textScale: number;
}

interface EmbeddingHint extends FileHint {
  /** The word of prompts. */
  word: string;
}

export type RecalledSettings = Partial<GivenSettings>;

export class Recipe {
  readonly settings: RecalledSettings = {};
  readonly warnings: string[] = [];
  model: (FileHint & { isBundled?: boolean; isFolder?: boolean }) | null = null;
  vae: FileHint | null = null;
  refiner: (FileHint & { isFolder?: boolean }) | null = null;
  /** Those that are no tags of the prompt. */
  loras: LoraHint[] = [];
  /** Of LoRAs in tags, by name. */
  readonly loraDigits = new Map<string, string>();
  embeddings: EmbeddingHint[] = [];
  /** SHA-256 of the pixels that the image started from; null where it is from noise alone. */
  input: { image: string; mask?: string | undefined } | null = null;
  /** What the image was computed with; null where nobody knows. */
  hardware: string | null = null;

  /** `tool` names the program, as in "ComfyUI"; `compat` is whose images it makes. */
  constructor(
    readonly tool: string,
    private readonly compat: Compat = "diffusers",
  ) {
    if (compat !== "diffusers") this.settings.compat = compat;
  }

  /** Takes a value over as the flag's text; `name` is what the image calls it. */
  take(key: SettingKey, value: unknown, name: string): void {
    if (value === undefined || value === null || value === "") return;
    try {
      const text = typeof value === "string" ? value.trim() : wordsOf(value);
      Object.assign(this.settings, { [key]: parseSetting(key, text.slice(0, 1e5), () => name) });
    } catch (error) {
      if (!(error instanceof BasedXLError)) throw error;
      this.refuse(error);
    }
  }

  /** Prompts are taken as they are. */
  takePrompts(prompt: string, negativePrompt: string | undefined): void {
    if (prompt.trim() !== "") this.settings.prompt = prompt;
    if (negativePrompt !== undefined) this.settings.negativePrompt = negativePrompt;
  }

  /** Sides that SDXL cannot have are rounded. */
  takeSize(width: number, height: number): void {
    for (const [key, side] of [["width", width] as const, ["height", height] as const]) {
      const nearest = Math.round(side / sideUnit) * sideUnit;
      const rounded = Math.min(sideMax, Math.max(sideUnit, nearest));
      if (rounded !== side) this.warn(`The ${key} ${side} is not possible: ${rounded} is used.`);
      this.take(key, rounded, key);
    }
  }

  /**
   * Takes sampler and schedule over, by the names of A1111 and ComfyUI. `absent` is what no
   * schedule at all means; "Automatic" is left to the tool.
   */
  takeSampler(sampler: string, schedule: string | undefined, absent = "normal"): void {
    const named = samplerNamed(sampler);
    if (named === null) {
      const other = compatScheduler(this.compat) ?? "the model's own";
      this.warn(`The sampler "${escaped(sampler, 60)}" is not known: ${other} is used.`);
    } else {
      this.settings.scheduler = named.name;
      const { noiseSampler } = named;
      if (noiseSampler && this.compat !== "diffusers") this.settings.noiseSampler = noiseSampler;
    }
    const asked = normalized(schedule ?? "") || normalized(named?.sigmas ?? absent);
    const key = asked === "automatic" ? normalized(named?.sigmas ?? ownSchedule) : asked;
    const known = Object.hasOwn(schedules, key) ? schedules[key] : undefined;
    if (known === undefined) {
      this.warn(`The schedule "${escaped(schedule ?? "", 60)}" is not known: the sampler's own is \
used.`);
      return;
    }
    if (this.compat === "diffusers") this.takeSpacing(known, schedule ?? "", named?.name);
    else this.takeLevels(known, schedule ?? "", named?.name);
  }

  warn(sentence: string): void {
    if (!this.warnings.includes(sentence)) this.warnings.push(sentence);
  }

  // --- internal ---

  /** A value that no setting can have. */
  protected refuse({ message }: BasedXLError): void {
    this.warn(`${this.tool}'s ${escaped(message.replace(/\.$/, ""), 200)}; left out.`);
  }

  /** Of k-diffusion itself. */
  private takeLevels(
    { levels }: ScheduleSettings,
    schedule: string,
    sampler: Scheduler | undefined,
  ): void {
    if (levels === undefined) return;
    if (sampler === undefined || hasSigmas(sampler, flavourOf(this.compat))) {
      this.settings.sigmas = levels;
    } else if (schedule !== "") {
      this.warn(`The schedule "${escaped(schedule, 60)}" is not used: ${sampler} has its own.`);
    }
  }

  /** What comes near it in the formulas of diffusers. */
  private takeSpacing(
    { levels: _, near, ...settings }: ScheduleSettings,
    schedule: string,
    sampler: Scheduler | undefined,
  ): void {
    Object.assign(this.settings, settings);
    if (sampler === undefined || settings.sigmas === undefined || hasSigmas(sampler)) return;
    delete this.settings.sigmas;
    if (near === undefined) return;
    this.settings.timestepSpacing = near;
    this.warn(`The schedule "${escaped(schedule, 60)}" is replaced by --timestep-spacing \
${near}, which is near it.`);
  }
}

/** Sides are multiples of it: of SDXL's UNet and VAE together. */
export const sideUnit = 32;

/** What stands for a schedule that keeps the model's own. */
export const ownSchedule = "own";

// --- internal ---

const sideMax = settingsTable.width.max;

type ScheduleSettings = Pick<RecalledSettings, "sigmas" | "timestepSpacing"> & {
  /** Noise levels under --compat; absent where the tool decides. */
  levels?: SigmaKind;
  /** What stands for it in a sampler without sigmas. */
  near?: TimestepSpacing;
};

/** By names without spaces and signs. */
const schedules: Readonly<Record<string, ScheduleSettings | undefined>> = {
  own: {},
  normal: { levels: "normal", timestepSpacing: "linspace" },
  uniform: { levels: "normal", timestepSpacing: "linspace" },
  karras: both("karras"),
  exponential: both("exponential"),
  polyexponential: both("exponential"),
  beta: { levels: "beta", sigmas: "beta_timesteps", timestepSpacing: "linspace" },
  sgmuniform: { ...both("sgm_uniform"), near: "trailing" },
  simple: { ...both("simple"), near: "trailing" },
  ddim: { levels: "ddim_uniform", timestepSpacing: "leading" },
  ddimuniform: { ...both("ddim_uniform"), near: "leading" },
  linearquadratic: both("linear_quadratic"),
  kloptimal: both("kl_optimal"),
  alignyoursteps: both("ays"),
};

/** k-diffusion counts from the last timestep to the first. */
function both(sigmas: SigmaKind): ScheduleSettings {
  return { levels: sigmas, sigmas, timestepSpacing: "linspace" };
}

function normalized(text: string): string {
  return text.toLowerCase().replace(/[\s_-]/g, "");
}
