/**
 * What requests may name: the models of the server's list, and the LoRAs and embeddings in the
 * folders of models. Requests give names, never paths.
 */
import { basename } from "node:path";
import { BasedXLError, badOption, escaped } from "../errors.ts";
import { adapterHash, HashCache } from "../library/hashes.ts";
import { describeModel, type ListedModel } from "../library/list.ts";
import { isPathAlone, Library, modelFolders, serves } from "../library/resolve.ts";
import type { FoundModel } from "../library/scan.ts";
import { stemOf } from "../library/scan.ts";
import type { Model } from "../models/model.ts";
import { openUpscaler } from "../networks/upscaler.ts";
import {
  bundledControlNetName,
  type RequestFileKind,
  type RequestFiles,
} from "../pipeline/request-files.ts";
import {
  type GenerateRequest,
  noImages,
  Pipeline,
  type PipelineDependencies,
  type PlannedRequest,
  type PreparedPipeline,
  type PrepareOptions,
  preparePipeline,
  type ReadImages,
  readImages,
  withRefiner,
} from "../pipeline.ts";
import { resources } from "../resources.ts";
import { asField, asFlag } from "../settings/values.ts";
import { suggestion } from "../terminal/flags.ts";
import type { CatalogModel } from "./catalog-model.ts";
import type { JobSpec } from "./jobs/types.ts";
import type { ServeConfig } from "./settings.ts";
import { Vaes } from "./vaes.ts";

interface PlanOptions {
  rankCount?: number;
  read?: ReadImages;
}

interface ListedAdapter {
  name: string;
  path: string;
  detail: string;
  hash: string | null;
}

export class Catalog {
  private readonly files: ListedFiles;
  private readonly vaes = new Vaes();
  private adapters: ListedAdapter[] = [];
  private upscalers_: { name: string; scale: number }[] = [];
  private ipAdapters_: string[] = [];

  private constructor(
    readonly models: readonly CatalogModel[],
    folders: readonly string[],
  ) {
    this.files = new ListedFiles(folders);
    for (const { prepared } of models) Object.assign(prepared, { files: this.files });
  }

  /**
   * Opens the models' folders, not their weights. Rejects as `preparePipeline` does, so that a
   * server with a wrong model does not start.
   */
  static async open(
    config: ServeConfig,
    { onLine, onDownload, signal }: Pick<PrepareOptions, "onLine" | "onDownload" | "signal">,
    dependencies?: PipelineDependencies,
  ): Promise<Catalog> {
    const { modelsDir } = config;
    const names = config.models.length > 0 ? config.models : [undefined];
    const models: CatalogModel[] = [];
    for (const name of names) {
      const own = { model: name, devices: config, naming: asFlag, first: firstRequest };
      const options = { ...config, ...own, onLine, onDownload, signal };
      const prepared = await preparePipeline(options, dependencies);
      const id = freeName(idOf(name, prepared), models);
      models.push({ id, vae: null, refiner: null, prepared: { ...prepared, naming: asField } });
    }
    const catalog = new Catalog(models, modelFolders(modelsDir));
    // Jobs that an earlier server left may name VAEs.
    await catalog.refreshVaes();
    return catalog;
  }

  /**
   * The model that a request names, with the VAE and the refiner that it names: the first where it
   * names none, with the server's. Throws "bad-model", and "bad-option" for a refiner that does not
   * fit.
   */
  model({ model, vae, refiner }: Pick<JobSpec, "model" | "vae" | "refiner">): CatalogModel {
    const found = this.modelNamed(model);
    const own = vae === undefined ? found : this.vaes.model(found, vae);
    return refiner === undefined ? own : this.refined(own, this.modelNamed(refiner));
  }

  /** The plan that the model will run with: on all of its ranks or some, from an image or not. */
  plan(
    { prepared }: CatalogModel,
    request: GenerateRequest,
    { rankCount = prepared.rankCount, read = noImages }: PlanOptions = {},
  ): PlannedRequest {
    return Pipeline.plan({ ...prepared, rankCount }, request, read);
  }

  /** The images that a request names, and the networks that read them. */
  async images({ prepared }: CatalogModel, request: GenerateRequest): Promise<ReadImages> {
    return await readImages(request, { ...prepared, files: this.files });
  }

  /** LoRAs, as they were seen last. */
  loras(): readonly ListedAdapter[] {
    return this.adapters;
  }

  vaeNames(): readonly string[] {
    return this.vaes.names();
  }

  /** How much larger each makes an image, as they were seen last. */
  upscalers(): readonly { name: string; scale: number }[] {
    return this.upscalers_;
  }

  embeddings(): readonly string[] {
    return [...this.files.embeddings().paths.keys()].filter((name) => !name.includes("/"));
  }

  controlnets(): readonly string[] {
    const hasBundled = this.models.some(({ prepared }) => prepared.isBundledModel);
    const names = this.files.names("controlnet").filter((name) => !this.ipAdapters_.includes(name));
    return [...(hasBundled ? [bundledControlNetName] : []), ...names];
  }

  /** As they were seen last. */
  ipAdapters(): readonly string[] {
    return this.ipAdapters_;
  }

  imageEncoders(): readonly string[] {
    return this.files.namesInFolders("clip-vision");
  }

  /** Looks at the folders again. */
  async refresh(): Promise<void> {
    this.files.refresh();
    await this.refreshVaes();
    await this.list();
  }

  /**
   * Lists what has no part in finding a job's files: headers of many files may take seconds, and
   * the server listens before.
   */
  async list(): Promise<void> {
    const hashes = new HashCache();
    this.adapters = (await this.files.listed("lora")).map(({ name, path, detail }) => {
      const sha256 = hashes.known(path);
      return { name, path, detail, hash: sha256 && adapterHash(sha256) };
    });
    const upscalers = (await this.files.listed("upscaler")).flatMap(scaledUpscaler);
    this.upscalers_ = upscalers.sort((a, b) => (a.name < b.name ? -1 : 1));
    this.ipAdapters_ = namesOf(await this.files.listed("ip-adapter"));
  }

  // --- internal ---

  private modelNamed(name: string | undefined): CatalogModel {
    if (name === undefined) return this.models[0]!;
    const wanted = name.toLowerCase();
    const found = this.models.find(({ id }) => id.toLowerCase() === wanted);
    if (found !== undefined) return found;
    const ids = this.models.map(({ id }) => id);
    throw new BasedXLError(
      "bad-model",
      `The server has no model ${JSON.stringify(escaped(name, 100))}.${suggestion(name, ids)}`,
    );
  }

  private refined(model: CatalogModel, refiner: CatalogModel): CatalogModel {
    const prepared = withRefiner(model.prepared, refiner.prepared);
    return { ...model, refiner: refiner.id, prepared };
  }

  private async refreshVaes(): Promise<void> {
    await this.vaes.refresh(this.models, await this.files.listed("vae"));
  }
}

/** Finds files beside models by name, in the folders of models alone. */
class ListedFiles implements RequestFiles {
  private library: Library;
  /** Files that were looked into, by their paths. */
  private seen = new Map<string, ListedModel>();

  constructor(private readonly folders: readonly string[]) {
    this.library = new Library(folders);
  }

  refresh(): void {
    this.library = new Library(this.folders);
    this.seen = new Map();
  }

  /** Files of this kind, by what they hold; each is looked into once between two refreshes. */
  async listed(kind: "lora" | "vae" | "upscaler" | "ip-adapter"): Promise<ListedModel[]> {
    const listed: ListedModel[] = [];
    for (const found of this.library.all()) {
      if (!serves(found.folder, kind)) continue;
      const model = await this.described(found);
      if (isOfKind(model, kind)) listed.push(model);
    }
    return listed;
  }

  find(kind: RequestFileKind, value: string): string {
    if (kind === "controlnet" && value === bundledControlNetName) {
      return resources.bundledControlNet();
    }
    const noun = nouns[kind];
    const shown = JSON.stringify(escaped(value, 100));
    if (isPathAlone(value) || value.split(/[/\\]/).includes("..")) {
      throw badOption(`The ${noun} ${shown} must be a name of the server's list, not a path.`);
    }
    const path = this.lookUp(kind, value, shown);
    if (path !== null) return path;
    const hint = suggestion(value, this.library.names(kind));
    throw new BasedXLError("bad-model", `The server has no ${noun} ${shown}.${hint}`);
  }

  names(kind: "controlnet"): readonly string[] {
    return this.library.names(kind);
  }

  /** Of those whose folder says what they are. */
  namesInFolders(kind: "clip-vision"): string[] {
    const found = this.library.all().filter(({ folder }) => folder.kind === kind);
    return found.map(({ name, isFolder }) => (isFolder ? name : stemOf(name))).sort();
  }

  embeddings() {
    return { paths: this.library.embeddingsByName(), warnings: [] };
  }

  // --- internal ---

  private async described(found: FoundModel): Promise<ListedModel> {
    const known = this.seen.get(found.path);
    if (known !== undefined) return known;
    const model = await describeModel(found);
    this.seen.set(found.path, model);
    // Headers are read without a pause: others have their turn between two files.
    await Bun.sleep(0);
    return model;
  }

  private lookUp(kind: RequestFileKind, value: string, shown: string): string | null {
    try {
      return this.library.find(kind, value);
    } catch (error) {
      if (!(error instanceof BasedXLError)) throw error;
      // The library's own sentence names paths.
      throw new BasedXLError("bad-model", `${shown} may be several files: name its folder too.`);
    }
  }
}

// --- internal ---

const nouns: Readonly<Record<RequestFileKind, string>> = {
  lora: "LoRA",
  embedding: "embedding",
  controlnet: "ControlNet",
  "ip-adapter": "IP-Adapter",
  "clip-vision": "image encoder",
  upscaler: "upscaler",
};

function namesOf(listed: readonly ListedModel[]): string[] {
  return listed.map(({ name }) => name).sort();
}

/** None for one that cannot be read. */
function scaledUpscaler({ name, path }: ListedModel): { name: string; scale: number }[] {
  try {
    return [{ name, scale: openUpscaler(path).scale }];
  } catch (error) {
    if (error instanceof BasedXLError) return [];
    throw error;
  }
}

/** By what the file holds. */
function isOfKind({ kind, detail }: ListedModel, wanted: string): boolean {
  return wanted === "ip-adapter" ? kind === "adapter" && detail === "IP-Adapter" : kind === wanted;
}

/** What a model is loaded for: an image of its size, made from another one where it needs that. */
function firstRequest({ kind, defaults, nativeSize }: Model): GenerateRequest {
  if (kind === "base") return { prompt: "" };
  const width = defaults.width ?? nativeSize.width;
  const height = defaults.height ?? nativeSize.height;
  const image = { width, height, pixels: new Uint8Array(3 * width * height) };
  const mask = { width, height, pixels: new Uint8Array(width * height).fill(255) };
  return { prompt: "", image, ...(kind === "inpainting" && { mask }) };
}

/** Paths say where users keep things: the name of the file instead. */
function idOf(name: string | undefined, { model, isBundledModel }: PreparedPipeline): string {
  if (name === undefined || isBundledModel || isPathAlone(name)) return stemOf(model.name);
  return stemOf(name.includes(":") || name.split("/").length === 2 ? name : basename(name));
}

function freeName(name: string, taken: readonly CatalogModel[]): string {
  const isTaken = (each: string) => taken.some(({ id }) => id === each);
  let free = name;
  for (let number = 2; isTaken(free); number++) free = `${name}-${number}`;
  return free;
}
