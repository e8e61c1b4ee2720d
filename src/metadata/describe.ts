/**
 * What an image says of how it was made: A1111's text for people, sites and other programs, and
 * JSON with everything that is needed to repeat it. Neither has a path or a time: the same request
 * gives the same file.
 */
import { basename } from "node:path";
import type { PlannedLora } from "../adapters/plan.ts";
import { readPromptTags, withTagNames } from "../adapters/prompt-tags.ts";
import { dtypeOf } from "../devices.ts";
import type { ImageTexts } from "../image/exif.ts";
import { adapterHash, shortHash } from "../library/hashes.ts";
import { pathOf } from "../library/resolve.ts";
import { stemOf } from "../library/scan.ts";
import type { Model } from "../models/model.ts";
import type { PlannedControl } from "../pipeline/controls.ts";
import type { PlannedIpAdapter } from "../pipeline/ip-adapters.ts";
import type {
  GeneratedImage,
  GenerateRequest,
  PlannedRequest,
  PreparedPipeline,
} from "../pipeline.ts";
import { resources } from "../resources.ts";
import type { MaskContent, Scheduler } from "../settings/names.ts";
import { controlSettings } from "../settings/table/control.ts";
import { hiresSettings } from "../settings/table/hires.ts";
import { inputSettings } from "../settings/table/input.ts";
import { perImageKeys, type SettingKey, settingKeys, settingOf } from "../settings/table.ts";
import { asField } from "../settings/values.ts";
import { emphases, hiresNames } from "./from-infotext.ts";
import { type FileHashes, isBundled } from "./hashes.ts";
import { writeInfotext } from "./infotext.ts";
import { formatVersion, isRecorded, type OwnFile, type OwnRecord } from "./record.ts";
import { a1111NameOf } from "./sampler-names.ts";

/** The part of an image that its texts depend on. */
type Described = Pick<GeneratedImage, "seed" | "index" | "origin">;

/** What made an image: `plan` is of its own request. */
type Made = Omit<PreparedPipeline, "request"> & { plan: PlannedRequest };

/** The texts of an image, with those hashes that are known. */
export function textsOfImage(image: Described, hashes: FileHashes): ImageTexts {
  const { prepared: pipeline, plan } = image.origin.parts();
  const prepared = { ...pipeline, plan };
  const loras = new LoraNames(plan);
  const settings = settingsOf(prepared, image, loras);
  const files = filesOf(prepared, hashes, image, loras);
  const record: OwnRecord = {
    basedxl: resources.versions().basedxl,
    format: formatVersion,
    settings: Object.fromEntries(
      [...settings].map(([key, value]) => [asField(key), jsonOf(key, value, loras)]),
    ),
    ...files,
    ...(plan.input !== null && { input: inputOf(plan.input) }),
    ...(plan.ipAdapters.length > 0 && { ip_adapters: plan.ipAdapters.map(ipAdapterOf) }),
    hardware: hardwareOf(prepared),
  };
  const parameters = infotextOf(prepared, settings, files);
  return { parameters, own: JSON.stringify(record) };
}

// --- internal ---

/** Every setting that the image depends on, as it was resolved. */
function settingsOf(
  { model, devices, rankCount, plan }: Made,
  { seed, index }: Described,
  loras: LoraNames,
): Map<SettingKey, unknown> {
  const values: Partial<Record<SettingKey, unknown>> = {
    ...plan.settings,
    ...ownOf(plan.request, index),
    seed,
    ...noiseOf(plan, index),
    predictionType: model.scheduler.predictionType,
    rescaleBetasZeroSnr: model.scheduler.rescaleBetasZeroSnr,
    device: devices.gpu?.library ? "cuda-emulated" : devices.device,
    dtype: dtypeOf(devices),
    fp16Accumulate: devices.gpu?.fp16Accumulate ?? false,
    rankCount,
  };
  if (typeof values.prompt === "string") values.prompt = loras.inTags(values.prompt);
  const recorded = settingKeys.filter(
    (key) =>
      isRecorded(key) &&
      values[key] !== undefined &&
      // Without an image to start from, hints, or a second pass, they mean nothing.
      (plan.input !== null || !(key in inputSettings)) &&
      (plan.controls.length > 0 || !(key in controlSettings)) &&
      (plan.hires !== null || !(key in hiresSettings)),
  );
  return new Map(recorded.map((key) => [key, values[key]]));
}

function inputOf({ imageHash, maskHash }: NonNullable<PlannedRequest["input"]>) {
  return { image: imageHash, ...(maskHash !== null && { mask: maskHash }) };
}

function ipAdapterOf({ adapter, imageHashes, scales, start, end }: PlannedIpAdapter) {
  return { name: adapter.name, images: [...imageHashes], scales: [...scales], start, end };
}

/** What repeats an image's noise alone: its place in a batch, and the seed of its variation. */
function noiseOf({ batches, settings }: PreparedPipeline["plan"], index: number) {
  const image = batches.flatMap(({ images }) => images)[index];
  const noiseIndex = settings.noiseOrder === "batch" ? image?.noisePlace : undefined;
  return { noiseIndex, variationSeed: image?.variationSeed ?? undefined };
}

/** Values that the request has for each image. */
function ownOf(request: GenerateRequest, index: number): Partial<Record<SettingKey, unknown>> {
  const values: Readonly<Partial<Record<SettingKey, unknown>>> = request;
  const own = perImageKeys.flatMap((key): [SettingKey, unknown][] => {
    const value = values[key];
    return Array.isArray(value) ? [[key, value[index] ?? undefined]] : [];
  });
  return Object.fromEntries(own);
}

/** A value as the schema of requests reads it; files by their names. */
function jsonOf(key: SettingKey, value: unknown, loras: LoraNames): unknown {
  const setting = settingOf(key);
  if (typeof value === "bigint") return String(value);
  if (setting.kind !== "list") return value;
  if (key in controlSettings) {
    return (value as readonly unknown[]).map((item) => {
      return setting.of.format(key === "controlnet" ? nameOf("controlnet", String(item)) : item);
    });
  }
  return (value as readonly { file: string }[]).map((item) => {
    const file = key === "loras" ? loras.of(item.file) : nameOf("embedding", item.file);
    return setting.of.format({ ...item, file });
  });
}

/** A name as it was given, or that of the file at a path: paths say where users keep things. */
function nameOf(kind: "lora" | "embedding" | "controlnet", value: string): string {
  const path = pathOf(kind, value);
  return path === null ? value : stemOf(basename(path));
}

/** Names of a request's LoRAs: of two files at paths that have the same name, one gets a number. */
class LoraNames {
  private readonly byPath = new Map<string, string>();

  constructor({ loras, settings, request }: PlannedRequest) {
    const prompts = [settings.prompt, request.prompt ?? []].flat();
    const tagged = prompts.flatMap((prompt) => readPromptTags(prompt, "the prompt").loras);
    const atPaths = new Set([...settings.loras, ...tagged].map(({ file }) => pathOf("lora", file)));
    const taken = new Set<string>();
    for (const { path, name } of loras) if (!atPaths.has(path)) taken.add(name);
    for (const { path, name } of loras) {
      if (!atPaths.has(path) || this.byPath.has(path)) continue;
      let free = name;
      for (let number = 2; taken.has(free); number++) free = `${name}-${number}`;
      taken.add(free);
      this.byPath.set(path, free);
    }
  }

  /** Of what --lora or a tag names. */
  of(value: string): string {
    return this.byPath.get(pathOf("lora", value) ?? "") ?? nameOf("lora", value);
  }

  ofPlanned({ path, name }: PlannedLora): string {
    return this.byPath.get(path) ?? name;
  }

  /** The prompt without paths in its tags. */
  inTags(prompt: string): string {
    return withTagNames(prompt, (file) => this.of(file));
  }
}

function filesOf(
  { model, refiner, vae, plan, named }: Made,
  hashes: FileHashes,
  { index }: Described,
  loras: LoraNames,
): Pick<OwnRecord, "model" | "refiner" | "vae" | "config" | "loras" | "embeddings"> {
  const hashed = (name: string, paths: readonly string[], start = 0): OwnFile => {
    const known = paths.map((path) => hashes.of(path, start)).filter((each) => each !== null);
    return known.length === paths.length && known.length > 0 ? { name, sha256: known } : { name };
  };
  const ofModel = ({ path, name, weights: { unet } }: Model, given: string | undefined) => {
    const isNamed = given !== undefined && pathOf("checkpoint", given) === null;
    const isFolder = unet.files.some((each) => each !== path);
    return {
      ...hashed(isNamed ? given : name, unet.files),
      ...(isFolder && { component: "unet" as const }),
    };
  };
  const used = plan.batches.flatMap(({ images }) => images)[index]?.loras ?? [];
  return {
    model: { ...ofModel(model, named.model), ...(isBundled(model) && { bundled: true }) },
    ...(refiner !== null && { refiner: ofModel(refiner, named.refiner) }),
    ...(vae !== null && {
      vae: hashed(pathOf("vae", named.vae ?? "") ? basename(vae.path) : (named.vae ?? ""), [
        ...model.weights.vae.files,
      ]),
    }),
    ...(named.config !== undefined && { config: basename(named.config) }),
    loras: used.map((lora) => {
      return hashed(loras.ofPlanned(lora), [lora.path], 8 + lora.file.header.headerBytes);
    }),
    embeddings: plan.embeddings.used.map(({ name, path }) => hashed(name, [path])),
  };
}

/** Instructions and GPUs round differently. */
function hardwareOf({ devices, machine }: Made): string {
  const isOnGpu = devices.device === "cuda" && !devices.gpu?.library;
  return isOnGpu ? machine.gpuName : machine.instructionSet;
}

type Files = ReturnType<typeof filesOf>;

function infotextOf(
  { plan, model: { scheduler } }: Made,
  settings: ReadonlyMap<SettingKey, unknown>,
  { model, refiner, vae, loras, embeddings }: Files,
): string {
  const value = (key: SettingKey) => settings.get(key);
  const { sampler, schedule: type } = a1111NameOf(plan.schedule.name, value, scheduler.sigmaKind);
  // A folder has no hash that anybody knows.
  const modelHash = model.component === undefined ? model.sha256?.[0] : undefined;
  const hashList = (files: readonly OwnFile[]) => {
    const known = files.filter(({ sha256 }) => sha256 !== undefined);
    const entries = known.map(({ name, sha256 }) => {
      return `${name.replace(/[:,]/g, "")}: ${sha256?.[0] && adapterHash(sha256[0])}`;
    });
    return entries.length === 0 ? undefined : entries.join(", ");
  };
  const fields: [string, unknown][] = [
    ["Steps", value("stepCount")],
    ["Sampler", sampler],
    ["Schedule type", type],
    ["CFG scale", value("guidanceScale")],
    ["Seed", value("seed")],
    ["Size", `${value("width")}x${value("height")}`],
    ["Model hash", modelHash && shortHash(modelHash)],
    ["Model", stemOf(basename(model.name))],
    ["VAE hash", vae?.sha256?.[0] && shortHash(vae.sha256[0])],
    ["VAE", vae && basename(vae.name)],
    ...inputFields(plan, value),
    ["Refiner", refiner && refinerField(refiner)],
    ["Refiner switch at", refiner && value("denoisingEnd")],
    ...hiresFields(plan, value),
    ...plan.controls
      .flatMap((control) => control.hints.map((hint) => controlText(control, hint)))
      .map((text, i): [string, unknown] => [`ControlNet ${i}`, text]),
    ["Variation seed", value("variationSeed")],
    ["Variation seed strength", value("variationStrength") || undefined],
    ["ENSD", value("etaNoiseSeedDelta") || undefined],
    ["RNG", value("rng") === "cuda" ? "NV" : "CPU"],
    ...noiseFields(plan.schedule.name, value),
    ["Lora hashes", hashList(loras)],
    ["TI hashes", hashList(embeddings)],
    ["Emphasis", emphasisOf(value)],
    ["Compat", value("compat") === "diffusers" ? undefined : value("compat")],
    ["Version", `BasedXL ${resources.versions().basedxl}`],
  ];
  return writeInfotext({
    prompt: String(value("prompt")),
    negativePrompt: String(value("negativePrompt") ?? ""),
    fields: fields.flatMap(([name, each]) => (each === undefined ? [] : [[name, String(each)]])),
  });
}

/** "name [hash]"; a folder has no hash that anybody knows. */
function refinerField({ name, sha256, component }: NonNullable<Files["refiner"]>): string {
  const hash = component === undefined ? sha256?.[0] : undefined;
  return `${stemOf(basename(name))}${hash === undefined ? "" : ` [${shortHash(hash)}]`}`;
}

/** As A1111's extension of ControlNets writes it (its names; hints are cut to the size). */
function controlText(
  { network, start, end }: PlannedControl,
  { preprocess, scale }: PlannedControl["hints"][number],
): string {
  return [
    `Module: ${preprocess}`,
    `Model: ${network.name.replace(/[,:]/g, "")}`,
    `Weight: ${scale}`,
    "Resize Mode: Crop and Resize",
    `Guidance Start: ${start}`,
    `Guidance End: ${end}`,
    "Control Mode: Balanced",
  ].join(", ");
}

/** As A1111 names what an image of two passes has. */
function hiresFields(
  { hires }: PlannedRequest,
  value: (key: SettingKey) => unknown,
): [string, unknown][] {
  if (hires === null) return [];
  return [
    ["Hires upscale", value("hires")],
    ["Hires steps", value("hiresSteps") || undefined],
    ["Hires upscaler", hiresNames[hires.upscaler.name] ?? hires.upscaler.name],
  ];
}

/** A1111's names, which leaves out its default. */
const contentNames: Partial<Record<MaskContent, string>> = {
  fill: "fill",
  "latent-noise": "latent noise",
  "latent-nothing": "latent nothing",
};

/** As A1111 names what an image that starts from another has. */
function inputFields(
  { input, hires }: PlannedRequest,
  value: (key: SettingKey) => unknown,
): [string, unknown][] {
  const strength = hires === null ? value("strength") : value("hiresStrength");
  const start: [string, unknown][] = [["Denoising strength", strength]];
  if (input === null || input.mask === null) return start;
  const isPart = value("maskArea") === "masked";
  return [
    ...start,
    ["Mask blur", value("maskBlur")],
    ["Masked content", contentNames[value("maskContent") as MaskContent]],
    ["Inpaint area", isPart ? "Only masked" : undefined],
    ["Masked area padding", isPart ? value("maskPadding") : undefined],
  ];
}

/** Options of samplers that are not A1111's defaults, as it names them. */
function noiseFields(sampler: Scheduler, value: (key: SettingKey) => unknown): [string, unknown][] {
  const isOfTimesteps = sampler === "ddim";
  const other = (key: SettingKey, usual: unknown) =>
    value(key) === usual ? undefined : value(key);
  return [
    isOfTimesteps ? ["Eta DDIM", other("eta", 0)] : ["Eta", other("eta", 1)],
    ["Sigma noise", other("sNoise", 1)],
    ["SGM noise multiplier", value("firstSigma") === "sqrt" ? "True" : undefined],
    ["Noise Schedule", value("rescaleBetasZeroSnr") ? "Zero Terminal SNR" : undefined],
  ];
}

/** How A1111 must read prompts that have brackets; absent is its default. */
function emphasisOf(value: (key: SettingKey) => unknown): string | undefined {
  const prompts = `${value("prompt")} ${value("negativePrompt") ?? ""}`;
  if (!/[([]/.test(prompts)) return undefined;
  if (value("promptSyntax") === "plain") return "None";
  if (value("promptSyntax") !== "a1111") return undefined;
  const name = Object.keys(emphases).find((each) => emphases[each] === value("emphasis"));
  return name === "Original" ? undefined : name;
}
