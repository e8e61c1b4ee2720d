/**
 * The capability document: what can be asked of this server, for the page, for clients and for the
 * dialects, which must not list anything that is not in it.
 */
import { createHash } from "node:crypto";
import { presetOf } from "../adapters/recipes.ts";
import { type ImageFormat, imageFormats } from "../image/encoder.ts";
import { HashCache } from "../library/hashes.ts";
import type { Model } from "../models/model.ts";
import { resources } from "../resources.ts";
import { qualities, recipeNames } from "../settings/names.ts";
import { fieldKeys } from "../settings/request-schema.ts";
import { samplerRows } from "../settings/samplers.ts";
import type { Setting } from "../settings/setting.ts";
import { settingOf } from "../settings/table.ts";
import { asField } from "../settings/values.ts";
import type { Catalog } from "./catalog.ts";
import type { CatalogModel } from "./catalog-model.ts";
import type { ServeConfig } from "./settings.ts";

export interface Capabilities {
  version: string;
  models: ListedServeModel[];
  loras: { name: string; detail: string; hash: string | null }[];
  embeddings: { name: string }[];
  /** That fit at least one model. */
  vaes: { name: string }[];
  controlnets: { name: string }[];
  ipAdapters: { name: string }[];
  /** What IP-Adapters read images with (`ip_encoder`). */
  imageEncoders: { name: string }[];
  /** For the second pass (`hires_upscaler`). */
  upscalers: { name: string; scale: number }[];
  samplers: { name: string; help: string; otherNames: readonly string[] }[];
  recipes: { name: string; title: string; steps: number; sampler: string; guidance: number }[];
  qualities: readonly string[];
  /** Of SDXL, width by height, scaled to the default model. */
  sizes: { width: number; height: number; ratio: string }[];
  settings: ListedSetting[];
  formats: readonly ImageFormat[];
  /** True only where the server has it. */
  features: Record<Feature, boolean>;
  limits: { queue: number; images: number; megapixels: number; bodyMebibytes: number };
  ranks: { count: number; share: string };
}

type Feature = "img2img" | "inpaint" | "controlnet" | "ipAdapter" | "refiner" | "previews";

interface ListedServeModel {
  /** As a request names it. */
  id: string;
  name: string;
  isDefault: boolean;
  /** Refiners and inpainting models need an image to start from; a job may name any as refiner. */
  kind: Model["kind"];
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
  /** Names that can be chosen, of a list for each of its entries. */
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

/** The document of a catalog; made anew when the folders of models were looked at. */
export class ServerCapabilities implements CapabilitySource {
  private document: Capabilities;
  private tag: string;

  constructor(
    private readonly catalog: Catalog,
    private readonly config: ServeConfig,
  ) {
    this.document = documentOf(catalog, config);
    this.tag = tagOf(this.document);
  }

  /** With what the catalog has not listed when it was opened. */
  async complete(): Promise<void> {
    await this.catalog.list();
    this.update();
  }

  current(): Capabilities {
    return this.document;
  }

  etag(): string {
    return this.tag;
  }

  async refresh(): Promise<void> {
    await this.catalog.refresh();
    this.update();
  }

  // --- internal ---

  private update(): void {
    this.document = documentOf(this.catalog, this.config);
    this.tag = tagOf(this.document);
  }
}

// --- internal ---

function documentOf(catalog: Catalog, config: ServeConfig): Capabilities {
  const models = catalog.models.map(listedModel);
  const [first] = models;
  return {
    version: resources.versions().basedxl,
    models,
    loras: catalog.loras().map(({ name, detail, hash }) => ({ name, detail, hash })),
    embeddings: catalog.embeddings().map((name) => ({ name })),
    vaes: catalog.vaeNames().map((name) => ({ name })),
    controlnets: catalog.controlnets().map((name) => ({ name })),
    ipAdapters: catalog.ipAdapters().map((name) => ({ name })),
    imageEncoders: catalog.imageEncoders().map((name) => ({ name })),
    upscalers: catalog.upscalers().map(({ name, scale }) => ({ name, scale })),
    samplers: Object.entries(samplerRows).map(([name, { text, others }]) => {
      return { name, help: text, otherNames: others };
    }),
    recipes: recipeNames.map((name) => {
      const { title, stepCount, scheduler, guidanceScale } = presetOf(name);
      return { name, title, steps: stepCount, sampler: scheduler, guidance: guidanceScale };
    }),
    qualities,
    sizes: sizesOf(first!, config.maxPixels),
    settings: fieldKeys.map((key) => listedSetting(asField(key), settingOf(key))),
    formats: imageFormats,
    features: {
      ...{ img2img: true, inpaint: true, controlnet: true, previews: true },
      ...{ ipAdapter: true, refiner: true },
    },
    limits: {
      ...{ queue: config.maxQueue, images: config.maxImages, megapixels: config.maxPixels },
      bodyMebibytes: config.maxBody,
    },
    ranks: { count: config.rankCount, share: config.share },
  };
}

function tagOf(document: Capabilities): string {
  const hash = createHash("sha256").update(JSON.stringify(document)).digest("hex");
  return `"${hash.slice(0, 16)}"`;
}

function listedModel({ id, prepared }: CatalogModel, index: number): ListedServeModel {
  const { model } = prepared;
  const { defaults, nativeSize, sizeMultiple } = model;
  const [file, ...others] = model.weights.unet.files;
  const isOneFile = others.length === 0 && file === model.path;
  return {
    ...{ id, name: id, isDefault: index === 0, kind: model.kind, sizeMultiple },
    sha256: isOneFile ? new HashCache().known(file) : null,
    width: defaults.width ?? nativeSize.width,
    height: defaults.height ?? nativeSize.height,
    defaults: {
      steps: defaults.steps ?? 50,
      guidanceScale: defaults.guidanceScale ?? 5,
      sampler: null,
      prompt: defaults.prompt ?? null,
    },
  };
}

/** The sizes that SDXL was trained with most, and their ratios. */
const trainedSizes = [
  ...([
    [1024, 1024, "1:1"],
    [1152, 896, "9:7"],
    [896, 1152, "7:9"],
  ] as const),
  ...([
    [1216, 832, "19:13"],
    [832, 1216, "13:19"],
    [1344, 768, "7:4"],
  ] as const),
  ...([
    [768, 1344, "4:7"],
    [1536, 640, "12:5"],
    [640, 1536, "5:12"],
  ] as const),
];

/** Scaled to the model's own size. */
function sizesOf({ width, height, sizeMultiple }: ListedServeModel, maxPixels: number) {
  const scale = Math.sqrt(width * height) / 1024;
  const scaled = (side: number) => Math.round((side * scale) / sizeMultiple) * sizeMultiple;
  return trainedSizes
    .map(([wide, high, ratio]) => ({ width: scaled(wide), height: scaled(high), ratio }))
    .filter((size) => (size.width * size.height) / 1e6 <= maxPixels);
}

function listedSetting(name: string, setting: Setting): ListedSetting {
  const { kind, group, help } = setting;
  const names = kind === "choice" ? setting.names : kind === "list" ? setting.of.names : undefined;
  return {
    ...{ name, kind, group, help },
    ...("min" in setting && { min: setting.min, max: Number(setting.max) }),
    ...(names !== undefined && { names }),
    ...("default" in setting && { default: setting.default }),
  };
}
