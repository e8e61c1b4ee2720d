/**
 * What requests may name: the models of the server's list, and the LoRAs and embeddings in the
 * folders of models. Requests give names, never paths.
 */
import { basename } from "node:path";
import { BasedXLError, badOption, escaped } from "../errors.ts";
import { adapterHash, HashCache } from "../library/hashes.ts";
import { describeModel, type ListedModel } from "../library/list.ts";
import { isPathAlone, Library, modelFolders } from "../library/resolve.ts";
import type { FoundModel } from "../library/scan.ts";
import { stemOf } from "../library/scan.ts";
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
  private upscalers: string[] = [];

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
      const own = { model: name, devices: config, naming: asFlag };
      const options = { ...config, ...own, onLine, onDownload, signal };
      const prepared = await preparePipeline(options, dependencies);
      const id = freeName(idOf(name, prepared), models);
      models.push({ id, vae: null, prepared: { ...prepared, naming: asField } });
    }
    const catalog = new Catalog(models, modelFolders(modelsDir));
    // Jobs that an earlier server left may name VAEs.
    await catalog.refreshVaes();
    return catalog;
  }

  /**
   * The model that a request names, with the VAE that it names: the first where it names none, with
   * the server's. Throws "bad-model".
   */
  model({ model, vae }: Pick<JobSpec, "model" | "vae">): CatalogModel {
    const found = this.modelNamed(model);
    return vae === undefined ? found : this.vaes.model(found, vae);
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

  upscalerNames(): readonly string[] {
    return this.upscalers;
  }

  embeddings(): readonly string[] {
    return [...this.files.embeddings().paths.keys()].filter((name) => !name.includes("/"));
  }

  controlnets(): readonly string[] {
    const hasBundled = this.models.some(({ prepared }) => prepared.isBundledModel);
    return [...(hasBundled ? [bundledControlNetName] : []), ...this.files.names("controlnet")];
  }

  /** Looks at the folders again. */
  async refresh(): Promise<void> {
    this.files.refresh();
    await this.refreshVaes();
    const hashes = new HashCache();
    this.adapters = (await this.files.listed("lora")).map(({ name, path, detail }) => {
      const sha256 = hashes.known(path);
      return { name, path, detail, hash: sha256 && adapterHash(sha256) };
    });
    const upscalers = await this.files.listed("upscaler");
    this.upscalers = upscalers.map(({ name }) => name).sort();
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

  private async refreshVaes(): Promise<void> {
    await this.vaes.refresh(this.models, await this.files.listed("vae"));
  }
}

/** Finds LoRAs and embeddings by name, in the folders of models alone. */
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
  async listed(kind: "lora" | "vae" | "upscaler"): Promise<ListedModel[]> {
    const listed: ListedModel[] = [];
    for (const found of this.library.all()) {
      if (found.folder.kind !== kind && found.folder.kind !== "any") continue;
      const model = await this.described(found);
      if (model.kind === kind) listed.push(model);
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
    // No folder of models is one of IP-Adapters.
    const listed = kind === "ip-adapter" ? null : kind;
    const path = listed && this.lookUp(listed, value, shown);
    if (path !== null) return path;
    const hint = listed ? suggestion(value, this.library.names(listed)) : "";
    throw new BasedXLError("bad-model", `The server has no ${noun} ${shown}.${hint}`);
  }

  names(kind: "controlnet"): readonly string[] {
    return this.library.names(kind);
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

  private lookUp(
    kind: Exclude<RequestFileKind, "ip-adapter">,
    value: string,
    shown: string,
  ): string | null {
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
  upscaler: "upscaler",
};

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
