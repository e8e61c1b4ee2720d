/**
 * The capability document: what can be asked of this server, for the page, for clients and for the
 * dialects, which must not list anything that is not in it.
 */
import { presetOf } from "../adapters/recipes.ts";
import type { ImageFormat } from "../image/encoder.ts";
import { qualities, recipeNames } from "../settings/names.ts";
import { samplerRows } from "../settings/samplers.ts";
import type { Setting } from "../settings/setting.ts";
import { requestKeys, settingOf } from "../settings/table.ts";
import { asField } from "../settings/values.ts";

export interface Capabilities {
  version: string;
  models: ListedServeModel[];
  loras: { name: string; detail: string; hash: string | null }[];
  embeddings: { name: string }[];
  samplers: { name: string; help: string; otherNames: readonly string[] }[];
  recipes: { name: string; title: string; steps: number; sampler: string; guidance: number }[];
  qualities: readonly string[];
  /** Of SDXL, width by height, scaled to the default model. */
  sizes: { width: number; height: number; ratio: string }[];
  settings: ListedSetting[];
  formats: readonly ImageFormat[];
  /** True only where the server has it. */
  features: Record<"img2img" | "inpaint" | "controlnet" | "previews", boolean>;
  limits: { queue: number; images: number };
  ranks: { count: number; share: string };
}

interface ListedServeModel {
  /** As a request names it. */
  id: string;
  name: string;
  isDefault: boolean;
  /** SHA-256 of a model in one file, where it is known. */
  sha256: string | null;
  width: number;
  height: number;
  /** Sides are multiples of it. */
  sizeMultiple: number;
  defaults: { steps: number; guidanceScale: number; sampler: string | null; prompt: string | null };
}

interface ListedSetting {
  /** As a request in JSON names it. */
  name: string;
  kind: Setting["kind"];
  group: string;
  help: string;
  min?: number;
  max?: number;
  /** Names that can be chosen. */
  names?: readonly string[];
  default?: unknown;
}

/** The document as it is now. */
export interface CapabilitySource {
  current(): Capabilities;
  /** Changes with the document. */
  etag(): string;
  /** Looks at the folders of models again. */
  refresh(): Promise<void>;
}

/** What does not depend on files. */
export function fixedCapabilities() {
  return {
    samplers: Object.entries(samplerRows).map(([name, { text, others }]) => ({
      name,
      help: text,
      otherNames: others,
    })),
    recipes: recipeNames.map((name) => {
      const { title, stepCount, scheduler, guidanceScale } = presetOf(name);
      return { name, title, steps: stepCount, sampler: scheduler, guidance: guidanceScale };
    }),
    qualities,
    settings: requestKeys.map((key) => listed(asField(key), settingOf(key))),
  };
}

// --- internal ---

function listed(name: string, setting: Setting): ListedSetting {
  const { kind, group, help } = setting;
  return {
    ...{ name, kind, group, help },
    ...("min" in setting && { min: setting.min, max: Number(setting.max) }),
    ...(setting.kind === "choice" && { names: setting.names }),
    ...("default" in setting && { default: setting.default }),
  };
}
