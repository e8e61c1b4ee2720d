/**
 * All that is settled before weights load: the model's folder, the devices, and a plan of the first
 * request. What can be refused early is refused here, within a second or two.
 */
import { chooseDevice, type DeviceChoice, type DeviceOptions, deviceDefaults } from "../devices.ts";
import type { DownloadProgress } from "../hub.ts";
import { modelFolders } from "../library/resolve.ts";
import { snapshotOf } from "../models/hub-cache.ts";
import { openModelFile } from "../models/hub-files.ts";
import { resolveModelPath } from "../models/locate.ts";
import type { Model } from "../models/model.ts";
import { openModel } from "../models/open.ts";
import { type PredictionOptions, withPrediction } from "../models/prediction.ts";
import { openTaesd, withTaesd } from "../models/taesd.ts";
import { openVae, type VaeChoice, withVae } from "../models/vae-choice.ts";
import { type DeviceInfo, probeDevice } from "../native/device-info.ts";
import { emulatorPath, prepareDevice } from "../native/library.ts";
import { openUpscaler } from "../networks/upscaler.ts";
import { asProperty, type Naming } from "../settings/values.ts";
import { type FirstUpscale, tileSizeOf } from "./enlargements.ts";
import { fetchRequestFiles } from "./fetch-files.ts";
import { checkTogether } from "./hires.ts";
import { readImages } from "./read-images.ts";
import { checkRefiner, planImages } from "./refine.ts";
import type { GenerateRequest, PlannedRequest } from "./request.ts";
import { type RequestFiles, requestFiles } from "./request-files.ts";

export interface PrepareOptions extends PredictionOptions {
  /**
   * A folder in diffusers' layout, a checkpoint in one file, the name of either in the folders of
   * models, an id of the Hugging Face hub ("org/name@revision"), which is fetched unless it is in
   * the cache, or a model that `openModel` opened. Default: the variable BASEDXL_MODEL, else the
   * bundled mini-sdxl.
   */
  model?: string | Model | undefined;
  /**
   * For a checkpoint in one file: a folder in diffusers' layout whose configs and tokenizers hold,
   * and whose weights stand in for networks that the file lacks. Default: what the file's shapes
   * say.
   */
  config?: string | undefined;
  /**
   * Another VAE than the model's own: a folder in diffusers' layout, a safetensors file, or the
   * name of one in the folders of models.
   */
  vae?: string | undefined;
  /**
   * A model that finishes the images (`pipeline/refine.ts`), named as `model` is. The VAE and the
   * TAESD are those of the base model.
   */
  refiner?: string | Model | undefined;
  /**
   * A TAESD, which previews are made with instead of an approximation of the latent: a folder in
   * diffusers' layout, a safetensors file, a name from the folders of models or an id of the hub.
   */
  taesd?: string | undefined;
  /**
   * Folders of models, where names are looked up: those of ComfyUI, A1111 and Forge, plain ones,
   * and files like extra_model_paths.yaml. Default: the variable BASEDXL_MODELS_DIR, with ":"
   * between.
   */
  modelsDir?: string | readonly string[] | undefined;
  /** Where ranks run. Default: one rank, on a GPU where there is one; see `devices.ts`. */
  devices?: Partial<DeviceOptions> | undefined;
  /** CPU threads of all ranks together; 0, the default, is one per core. */
  threadCount?: number | undefined;
  /**
   * What will be asked for first: if it cannot fit in memory, or be shared by so many ranks, it is
   * refused before weights load. Default: one image of the model's own size.
   */
  first?: GenerateRequest | ((model: Model) => GenerateRequest) | undefined;
  /**
   * An image that `upscale` will enlarge first, of so many pixels; refused before weights load
   * where it does not fit in memory, too. `tileSize` is as in `UpscaleOptions`.
   */
  upscale?: { upscaler: string; width: number; height: number; tileSize?: number } | undefined;
  /** Processes that generate together, each with as many ranks as `devices` says. Default 1. */
  processCount?: number | undefined;
  /** How messages name a setting; default: as the request's property. */
  naming?: Naming | undefined;
  /**
   * Called with a line before what takes minutes: a model is fetched, or a clone builds the library
   * of "cuda-emulated".
   */
  onLine?: ((line: string) => void) | undefined;
  /** Called as a model arrives from the hub, often. */
  onDownload?: ((progress: DownloadProgress) => void) | undefined;
  /** Stops a download, which rejects with "cancelled". */
  signal?: AbortSignal | undefined;
}

interface NamedFiles {
  model: string | undefined;
  refiner: string | undefined;
  config: string | undefined;
  vae: string | undefined;
}

/** A pipeline that can be loaded. */
export interface PreparedPipeline {
  model: Model;
  /** null for none. */
  refiner: Model | null;
  /** The VAE that was chosen for it; null for its own. */
  vae: VaeChoice | null;
  /** True where nothing named a model and it is the bundled one. */
  isBundledModel: boolean;
  /** What the caller called the files; undefined for the default. */
  named: NamedFiles;
  /** With the ranks of this process. */
  devices: DeviceChoice;
  /** What the library found of this machine. */
  machine: DeviceInfo;
  threadCount: number;
  /** Ranks of all processes. */
  rankCount: number;
  /** The first request, as it was asked and as it was planned. */
  request: GenerateRequest;
  plan: PlannedRequest;
  /** What will be enlarged first; null where that is the plan's. */
  upscale: FirstUpscale | null;
  /** Finds the files of further requests. */
  files: RequestFiles;
  naming: Naming;
}

/** What the library finds of the machine; tests bring a machine of their own. */
export interface PrepareDependencies {
  probeDevice(): DeviceInfo;
}

/** Rejects with `BasedXLError`: "bad-option", "bad-model", "download", "no-device", "setup". */
export async function preparePipeline(
  options: PrepareOptions = {},
  dependencies: PrepareDependencies = { probeDevice },
): Promise<PreparedPipeline> {
  const { threadCount = 0, processCount = 1, naming = asProperty } = options;
  const { first = { prompt: "" }, onLine = () => {} } = options;
  const { model: own, isBundledModel } = await modelOf(options, options.vae === undefined);
  const vae = await vaeOf(options, own);
  const whole = await withPreviews(vae === null ? own : withVae(own, vae), options);
  const model = withPrediction(whole, options, naming);
  const request = typeof first === "function" ? first(model) : first;
  const wanted = { ...deviceDefaults, ...options.devices };
  const rankCount = wanted.rankCount * processCount;
  const folders = modelFolders(options.modelsDir);
  await fetchRequestFiles(request, model, folders, options);
  const files = requestFiles(options.modelsDir);
  const refiner = await openRefiner(options, model, naming);
  const read = await readImages(request, { model, files, naming });
  const plan = planImages(request, { model, refiner, rankCount, naming, files }, read);
  if (processCount > 1) checkTogether(plan, naming);
  await prepareDevice(wanted.device, onLine);
  const machine = dependencies.probeDevice();
  const devices = chooseDevice(wanted, machine, emulatorPath, naming);
  const ranks = { devices, machine, threadCount, rankCount };
  return {
    ...{ model, refiner },
    vae,
    isBundledModel,
    named: namedFiles(options),
    ...ranks,
    request,
    plan,
    upscale: firstUpscale(options, files),
    files,
    naming,
  };
}

/** The same with another refiner. Throws "bad-option" for one that reads other latents. */
export function withRefiner(
  prepared: PreparedPipeline,
  refiner: Pick<PreparedPipeline, "model" | "named">,
): PreparedPipeline {
  const { model, named, naming, request, plan } = prepared;
  const own = {
    ...prepared,
    refiner: refinerOf(refiner.model, model, naming),
    named: { ...named, refiner: refiner.named.model },
  };
  return { ...own, plan: planImages(request, own, plan.read) };
}

// --- internal ---

function namedFiles({ model, refiner, config, vae }: PrepareOptions): NamedFiles {
  const nameOf = (each: string | Model | undefined) =>
    typeof each === "object" ? each.path : each;
  const given = nameOf(model) ?? (process.env.BASEDXL_MODEL || undefined);
  return { model: given, refiner: nameOf(refiner), config, vae };
}

async function openRefiner(
  options: PrepareOptions,
  base: Model,
  naming: Naming,
): Promise<Model | null> {
  const { refiner } = options;
  if (refiner === undefined) return null;
  const refinerOptions = { ...options, model: refiner, config: undefined };
  const { model } = await modelOf(refinerOptions, false, naming("refiner"));
  return refinerOf(model, base, naming);
}

function firstUpscale({ upscale }: PrepareOptions, files: RequestFiles): FirstUpscale | null {
  if (upscale === undefined) return null;
  const { upscaler, tileSize, ...size } = upscale;
  return {
    ...size,
    tileSize: tileSizeOf(tileSize),
    network: openUpscaler(files.find("upscaler", upscaler)),
  };
}

/** With the base model's VAE, whose latents it reads. */
function refinerOf(model: Model, base: Model, naming: Naming): Model {
  const { vae, vaeFactor, taesd } = base;
  checkRefiner(model, base, naming);
  const weights = { ...model.weights, vae: base.weights.vae };
  return { ...model, vae, vaeFactor, taesd, weights };
}

async function modelOf(
  { model, config, modelsDir, ...hub }: PrepareOptions,
  needsVae: boolean,
  flag?: string,
) {
  if (typeof model === "object") return { model, isBundledModel: false };
  const { path, bundled } = await resolveModelPath(model, { modelsDir, hub, flag });
  return { model: await openModel(path, { config, needsVae }), isBundledModel: bundled };
}

async function vaeOf(
  { vae, modelsDir, ...hub }: PrepareOptions,
  model: Model,
): Promise<VaeChoice | null> {
  if (vae === undefined) return null;
  const path = await openModelFile("vae", vae, modelFolders(modelsDir), hub);
  return await openVae(snapshotOf(path) ?? path, model.vae);
}

async function withPreviews(
  model: Model,
  { taesd, modelsDir, ...hub }: PrepareOptions,
): Promise<Model> {
  if (taesd === undefined) return model;
  const path = await openModelFile("taesd", taesd, modelFolders(modelsDir), hub);
  return withTaesd(model, await openTaesd(snapshotOf(path) ?? path, model));
}
