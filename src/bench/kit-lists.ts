/**
 * What the GPU kit runs (docs/gpu-kit.md), as files that zig/bench/gpu_list.zig and gpu_runs.zig
 * read: the operations of SDXL's graph with the heaviest first, images with random weights, images
 * with recorded latents, and the bars. Shapes come from the real graph, as in `bench gpu`.
 */
import { basename, join } from "node:path";
import type { Model } from "../models/model.ts";
import { nativeModelOf } from "../models/native-model.ts";
import { abiVersion, sizeOfModelConfig, writeModelConfig } from "../native/abi.ts";
import { scaledVae, type TokenPair } from "../native/handle.ts";
import type { Operation } from "../native/plan.ts";
import { gpuCeilings } from "../pipeline/device-rates.ts";
import { type ImageRequest, openSession, stepsToBytes } from "../pipeline/session.ts";
import { makeSchedule } from "../schedule.ts";
import type { Attention, CpuDtype } from "../settings/names.ts";
import { limits } from "./gpu-bars.ts";
import { requestFor, warmupsDefault } from "./gpu-models.ts";
import { ceilingOperations, jobsOf, type OperationJob } from "./gpu-ops.ts";
import { floorMs, nameOf } from "./gpu-work.ts";
import { goldenRun } from "./support/parity.ts";

/** A line of the list of operations. */
interface OperationLine {
  part: string;
  name: string;
  count: number;
  flops: number;
  bytes: number;
  operation: Omit<Operation, "op"> & { op: string };
}

/** Where the kit has a network's weights. */
interface KitFile {
  /** From the kit's folder. */
  path: string;
  /** The absolute path of the original. */
  source: string;
  /** Bytes of the whole file. */
  bytes: number;
}

export type KitFiles = Record<"text_encoder" | "text_encoder_2" | "unet" | "vae", KitFile>;

/** A model of the kit, with its files. */
export interface KitModel {
  name: string;
  model: Model;
  files: KitFiles;
}

/**
 * One patch at `side` pixels; ceilings, then the operations with the largest share of an image,
 * then what a step with --dtype int8 has instead.
 */
export function operationLines(model: Model, side: number, quick: boolean): OperationLine[] {
  const { product, productFlops, copy, copyBytes } = ceilingOperations(quick);
  const ceiling = { part: "ceiling", count: 0 };
  const isInt8 = ({ entry: { operation } }: OperationJob) =>
    operation.int8 || operation.op === "quantize_rows";
  return [
    { ...ceiling, name: "large product", flops: productFlops, bytes: 0, operation: product },
    { ...ceiling, name: "large copy", flops: 0, bytes: copyBytes, operation: copy },
    ...linesOf(jobsOf(model, side, [1], "f16")),
    ...linesOf(jobsOf(model, side, [1], "f16", true).filter(isInt8)).map((line) => ({
      ...line,
      part: "int8",
    })),
  ];
}

/** The largest share of an image first. */
function linesOf(all: readonly OperationJob[]): OperationLine[] {
  const jobs = all.map(({ part, entry }) => ({
    ms: (part === "UNet" ? stepsOfImage : 1) * entry.count * floorMs(entry, gpuCeilings.H200),
    line: {
      part,
      name: nameOf(entry.operation),
      count: entry.count,
      flops: entry.cost.flops,
      bytes: entry.cost.bytes,
      operation: entry.operation,
    },
  }));
  return jobs.toSorted((a, b) => b.ms - a.ms).map(({ line }) => line);
}

interface KitModels {
  sdxl: KitModel;
  golden: KitModel;
  /** The same model with headers alone, for random weights. */
  headers: KitModel;
}

/** The list of runs; its first is the smallest, which measures what libraries hold. */
export async function modelRuns({ sdxl, golden, headers }: KitModels) {
  return {
    abi_version: abiVersion,
    models: [sdxl, golden, headers].map(({ name, model, files }) => ({
      name,
      config: configHex(model),
      files: Object.fromEntries(
        Object.entries(files).map(([part, { path, bytes }]) => [part, { path, bytes }]),
      ),
    })),
    runs: [
      ...(await smallRuns(golden, headers)),
      ...(await recordedRuns(golden)),
      ...fullRuns(sdxl),
    ],
  };
}

/** Lines of bars.tsv: the figure, its limit as a number, and what the bar is called. */
export function barLines(): string {
  const { stepMs, secondStepMs, imageSeconds, decodeMs } = limits;
  const bars: [string, number, string][] = [
    [`${mainRun}: step`, stepMs, "first bar"],
    [`${mainRun}: step`, secondStepMs, "second bar"],
    [`${mainRun}: VAE decode`, decodeMs, "bar"],
    [`${mainRun}: ${stepsOfImage} steps with VAE`, imageSeconds, "bar"],
    [`${mainRun}: memory against the plan`, 5, "bar"],
  ];
  return bars.map((bar) => `${bar.join("\t")}\n`).join("");
}

/** The kit's files of a model, below the folder of its name there. */
export function filesOf(name: string, model: Model, bytesOf: (path: string) => number): KitFiles {
  const file = (part: string, [source]: readonly string[]): KitFile => {
    const path = join(name, part, basename(source!));
    return { path, source: source!, bytes: bytesOf(source!) };
  };
  const { textEncoder, textEncoder2, unet, vae } = model.weights;
  return {
    text_encoder: file("text_encoder", textEncoder.files),
    text_encoder_2: file("text_encoder_2", textEncoder2.files),
    unet: file("unet", unet.files),
    vae: file("vae", vae.files),
  };
}

// --- internal ---

const mainRun = "1024x1024";
const stepsOfImage = 30;
/** Of latents in f16 from those in f32. */
const latentLimit = 5e-3;

interface RunOptions {
  name: string;
  part: string;
  graphs?: boolean;
  /** Programmatic dependent launch of own kernels. */
  dependentLaunches?: boolean;
  attention?: Attention;
  /** The UNet's linear layers in int8. */
  int8?: boolean;
  warmups?: number;
  expected?: object;
}

function run({ name: modelName, model }: KitModel, request: ImageRequest, options: RunOptions) {
  const { width, height, steps } = request;
  return {
    name: options.name,
    part: options.part,
    model: modelName,
    latent_rows: height / model.vaeFactor,
    latent_width: width / model.vaeFactor,
    use_graphs: options.graphs ?? true,
    dependent_launches: options.dependentLaunches ?? false,
    attention: options.attention ?? "auto",
    random_weights: options.expected === undefined,
    int8: options.int8 ?? false,
    warmup_count: options.warmups ?? 0,
    seed: Number(request.seeds[0]),
    guidance_scale: request.guidanceScale,
    init_noise_sigma: request.initNoiseSigma,
    steps: Buffer.from(stepsToBytes(steps)).toString("hex"),
    prompt: tokensOf(request.prompt as TokenPair),
    negative: tokensOf(request.negative as TokenPair),
    ...(options.expected ? { expected: options.expected } : {}),
  };
}

/** Of the small model, for rehearsals, with the CPU's latents; the first of all. */
async function smallRuns(golden: KitModel, headers: KitModel) {
  const { model } = golden;
  const side = 2 * model.sizeMultiple;
  const request = { ...requestFor(model, side, side, 4), wantLatents: true };
  const expected = { ...(await cpuLatents(model, request, "f32")), limit: latentLimit };
  const inInt8 = { ...(await cpuLatents(model, request, "int8")), limit: latentLimit };
  return [
    run(golden, request, { name: "small model", part: "small", expected }),
    run(golden, request, {
      ...{ name: "small model, int8", part: "small", expected: inInt8 },
      int8: true,
    }),
    run(golden, request, {
      ...{ name: "small model, no graphs", part: "small", expected },
      graphs: false,
    }),
    run(golden, request, {
      ...{ name: "small model, dependent launches", part: "small", expected },
      dependentLaunches: true,
    }),
    run(
      headers,
      { ...request, wantLatents: false },
      { name: "small model, random weights", part: "small", warmups: 1 },
    ),
  ];
}

async function cpuLatents(model: Model, request: ImageRequest, dtype: CpuDtype) {
  const { width, height } = request;
  const cut = { rankCount: 1, threadCount: 0, guidance: true, splitBatch: false, imageCount: 1 };
  const session = await openSession({ model, width, height, dtype, ...cut });
  try {
    const { latents } = await session.image(request);
    return { values: [...latents!], stride: 1, norms: [], block_length: 0 };
  } finally {
    await session.close();
  }
}

/** Images of the small model that diffusers generated, with graphs and without. */
async function recordedRuns(golden: KitModel) {
  const { model, run: recorded, latents } = await goldenRun("euler");
  const tokens = (text: string): TokenPair => {
    const second = model.tokenizer2.encode(text);
    const { ids } = model.tokenizer!.encode(text);
    return { ids, ids2: second.ids, endIndex2: second.endIndex };
  };
  const schedule = makeSchedule("euler", model.scheduler, { stepCount: recorded.steps });
  const request: ImageRequest = {
    ...requestFor(model, recorded.width, recorded.height, recorded.steps),
    prompt: tokens(recorded.prompt),
    negative: tokens(recorded.negative ?? ""),
    guidanceScale: recorded.guidance,
    steps: schedule.steps,
    initNoiseSigma: schedule.initNoiseSigma,
    seeds: [BigInt(recorded.seed)],
  };
  const expected = {
    values: [...latents.data],
    stride: latents.stride,
    norms: [...(latents.norms ?? [])],
    block_length: latents.blockLength,
    limit: latentLimit,
  };
  const part = "recorded";
  return [
    run(golden, request, { name: "recorded image", part, expected }),
    run(golden, request, { name: "recorded image, no graphs", part, expected, graphs: false }),
    run(golden, request, {
      ...{ name: "recorded image, own attention", part, expected },
      attention: "own",
    }),
  ];
}

/** SDXL with random weights. */
function fullRuns(sdxl: KitModel) {
  const of = (width: number, height: number, steps: number, options: RunOptions) =>
    run(sdxl, requestFor(sdxl.model, width, height, steps), {
      warmups: warmupsDefault,
      ...options,
    });
  // Each in a process of its own too: one that fails or hangs costs no other.
  return [
    of(1024, 1024, stepsOfImage, { name: mainRun, part: "step" }),
    // In a process of its own, which reads the algorithms that the first has written.
    of(1024, 1024, 12, { name: `${mainRun} again`, part: "again", warmups: 0 }),
    of(1024, 1024, 12, { name: `${mainRun}, no graphs`, part: "no-graphs", graphs: false }),
    of(1024, 1024, 12, {
      ...{ name: `${mainRun}, own attention`, part: "own-attention" },
      attention: "own",
    }),
    // Both ways in one process, at the same clocks.
    ...[false, true].map((dependentLaunches) =>
      of(1024, 1024, 12, {
        name: `${mainRun}, dependent launches ${dependentLaunches ? "on" : "off"}`,
        part: "dependent-launches",
        dependentLaunches,
      }),
    ),
    of(1024, 1024, 12, { name: `${mainRun}, int8`, part: "int8", int8: true }),
    of(832, 1216, 12, { name: "832x1216", part: "832x1216" }),
    of(2048, 2048, 8, { name: "2048x2048", part: "2048x2048" }),
  ];
}

function tokensOf({ ids, ids2, endIndex2 }: TokenPair) {
  return { ids: [...ids], ids_2: [...ids2], end_index: endIndex2 };
}

function configHex(model: Model): string {
  const bytes = new Uint8Array(sizeOfModelConfig);
  writeModelConfig(new DataView(bytes.buffer), 0, scaledVae(nativeModelOf(model).config));
  return Buffer.from(bytes).toString("hex");
}
