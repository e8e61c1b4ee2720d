/**
 * What an image says of how it was made, in the settings of this program, before files are looked
 * up. What cannot be taken over is a warning, one sentence each.
 */
import { BasedXLError, escaped } from "../errors.ts";
import { hasSigmas } from "../schedule.ts";
import { samplerNamed, type TimestepSpacing } from "../settings/names.ts";
import {
  type GivenSettings,
  type SettingKey,
  settings as settingsTable,
} from "../settings/table.ts";
import { parseSetting } from "../settings/values.ts";

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
  /** Those that are no tags of the prompt. */
  loras: LoraHint[] = [];
  /** Of LoRAs in tags, by name. */
  readonly loraDigits = new Map<string, string>();
  embeddings: EmbeddingHint[] = [];
  /** What the image was computed with; null where nobody knows. */
  hardware: string | null = null;

  /** `tool` names the program, as in "ComfyUI". */
  constructor(readonly tool: string) {}

  /** Takes a value over as the flag's text; `name` is what the image calls it. */
  take(key: SettingKey, value: unknown, name: string): void {
    if (value === undefined || value === null || value === "") return;
    try {
      const text = typeof value === "string" ? value.trim() : String(value);
      Object.assign(this.settings, { [key]: parseSetting(key, text.slice(0, 1e5), () => name) });
    } catch (error) {
      if (!(error instanceof BasedXLError)) throw error;
      this.warn(`${this.tool}'s ${escaped(error.message.replace(/\.$/, ""), 200)}; left out.`);
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
   * Takes sampler and schedule over, by the names of A1111 and ComfyUI. `automatic` is what an
   * absent schedule means.
   */
  takeSampler(sampler: string, schedule: string | undefined, automatic = "normal"): void {
    const named = samplerNamed(sampler);
    if (named === null) {
      this.warn(`The sampler "${escaped(sampler, 60)}" is not known: the model's own is used.`);
    } else {
      this.settings.scheduler = named.name;
    }
    const asked = normalized(schedule ?? "");
    const isAutomatic = asked === "" || asked === "automatic";
    const key = isAutomatic ? normalized(named?.sigmas ?? automatic) : asked;
    const known = Object.hasOwn(schedules, key) ? schedules[key] : undefined;
    if (known === undefined) {
      this.warn(`The schedule "${escaped(schedule ?? "", 60)}" is not known: the sampler's own is \
used.`);
      return;
    }
    const { near, ...settings } = known;
    Object.assign(this.settings, settings);
    if (named === null || settings.sigmas === undefined || hasSigmas(named.name)) return;
    delete this.settings.sigmas;
    if (near === undefined) return;
    this.settings.timestepSpacing = near;
    this.warn(`The schedule "${escaped(schedule ?? "", 60)}" is replaced by --timestep-spacing \
${near}, which is near it.`);
  }

  warn(sentence: string): void {
    if (!this.warnings.includes(sentence)) this.warnings.push(sentence);
  }
}

/** What stands for a schedule that keeps the model's own. */
export const ownSchedule = "own";

// --- internal ---

/** Of SDXL's UNet and VAE together. */
const sideUnit = 32;
const sideMax = settingsTable.width.max;

type ScheduleSettings = Pick<RecalledSettings, "sigmas" | "timestepSpacing"> & {
  /** What stands for it in a sampler without sigmas. */
  near?: TimestepSpacing;
};

/** By names without spaces and signs. k-diffusion counts from the last timestep to the first. */
const schedules: Readonly<Record<string, ScheduleSettings | undefined>> = {
  own: {},
  normal: { timestepSpacing: "linspace" },
  uniform: { timestepSpacing: "linspace" },
  karras: { sigmas: "karras", timestepSpacing: "linspace" },
  exponential: { sigmas: "exponential", timestepSpacing: "linspace" },
  beta: { sigmas: "beta_timesteps", timestepSpacing: "linspace" },
  sgmuniform: { sigmas: "sgm_uniform", timestepSpacing: "linspace", near: "trailing" },
  simple: { sigmas: "simple", timestepSpacing: "linspace", near: "trailing" },
  ddim: { timestepSpacing: "leading" },
  ddimuniform: { sigmas: "ddim_uniform", timestepSpacing: "linspace", near: "leading" },
  linearquadratic: { sigmas: "linear_quadratic", timestepSpacing: "linspace" },
  kloptimal: { sigmas: "kl_optimal", timestepSpacing: "linspace" },
  alignyoursteps: { sigmas: "ays", timestepSpacing: "linspace" },
};

function normalized(text: string): string {
  return text.toLowerCase().replace(/[\s_-]/g, "");
}
