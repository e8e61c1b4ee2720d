/**
 * The whole-image part of `bench gpu`: images by the product's sessions with random weights that
 * the GPU generates, so that no 7 GB are read. Times of UNet step, text encoders, decoding and the
 * whole image; measured memory beside the plan. PyTorch's models in the same run.
 */
import { openModelFolder } from "../models/folder.ts";
import type { Model } from "../models/model.ts";
import type { GpuOptions } from "../native/handle.ts";
import {
  type ImageRequest,
  type ImageResult,
  openSession,
  type Session,
} from "../pipeline/session.ts";
import { promptTokenCount } from "../prompt/tokenizer.ts";
import { makeSchedule } from "../schedule.ts";
import { median } from "./cpu-ops.ts";
import { memoryOf } from "./gpu-predict.ts";
import type { GpuPeer } from "./gpu-programs.ts";
import { type GpuDtype, planFor } from "./gpu-work.ts";
import { renderTable } from "./report.ts";
import { goldenModel } from "./support/golden-model.ts";

/** One variant of settings. */
interface Variant {
  name: string;
  gpu: GpuOptions;
}

export interface ModelRow {
  variant: string;
  side: number;
  steps: number;
  /** Median of the steps after the first three (launched eagerly, captured, replayed once). */
  stepMs: number;
  textMs: number;
  decodeMs: number;
  /** Text encoders, all steps and decoding. */
  imageMs: number;
  /** Memory in use on the GPU after the image, by all processes. */
  deviceBytes: number;
  plannedBytes: number;
  /** deviceBytes minus that of a tiny model, plus the tiny model's plan; null if not measured. */
  measuredBytes: number | null;
}

export interface PeerRow {
  what: "unet" | "vae" | "text" | "image";
  side: number;
  /** "" for eager. */
  compile: string;
  ms: number | null;
}

/** The variants: f16 with CUDA graphs, without, with f16 accumulation, and bf16. */
export function variantsOf(
  base: Pick<GpuOptions, "library" | "randomWeights">,
  dtypes: readonly GpuDtype[],
): Variant[] {
  const gpu: GpuOptions = {
    ...base,
    dtype: "f16",
    share: true,
    fp16Accumulate: false,
    transport: "peer",
    graphs: true,
  };
  const halves: Variant[] = [
    { name: "f16", gpu },
    { name: "f16, no graphs", gpu: { ...gpu, graphs: false } },
    { name: "f16, sums in f16", gpu: { ...gpu, fp16Accumulate: true } },
  ];
  return [
    ...(dtypes.includes("f16") ? halves : []),
    ...(dtypes.includes("bf16") ? [{ name: "bf16", gpu: { ...gpu, dtype: "bf16" as const } }] : []),
  ];
}

/** Times every size with every variant; yields row by row. `warmups`: images before. */
export async function* timeModels(
  model: Model,
  variants: readonly Variant[],
  sides: readonly number[],
  steps: number,
  warmups = warmupsDefault,
): AsyncGenerator<ModelRow> {
  for (const { name, gpu } of variants) {
    const extra = await tinyExtra(gpu);
    for (const side of sides) {
      const session = await open(model, side, 1, false, gpu);
      try {
        const last = await warmImage(session, model, side, steps, { warmups });
        const plannedBytes = plannedFor(model, side, gpu.dtype);
        yield {
          variant: name,
          side,
          steps,
          ...timesOf(last),
          deviceBytes: last.deviceBytes,
          plannedBytes,
          measuredBytes: extra === null ? null : last.deviceBytes - extra,
        };
      } finally {
        await session.close();
      }
    }
  }
}

export async function* timePeerModels(
  peer: GpuPeer,
  model: Model,
  sides: readonly number[],
  steps: number,
  compileModes: readonly string[],
): AsyncGenerator<PeerRow> {
  for (const side of sides) {
    for (const compile of compileModes) {
      for (const what of ["unet", "vae", "text", "image"] as const) {
        // Text encoders do not depend on the size; "image" would compile both models again.
        if (what === "text" && side !== sides[0]) continue;
        if (what === "image" && compile !== "") continue;
        const latent = side / model.vaeFactor;
        const sizes = { rows: latent, width: latent, batch: 2, steps };
        const ask = { op: what, model: model.path, dtype: "f16", compile, ...sizes };
        process.stderr.write(`PyTorch ${what} ${side} ${compile || "eager"}\n`);
        const times = [await peer.time(ask), await peer.time(ask), await peer.time(ask)];
        const known = times.filter((ms) => ms !== null);
        yield { what, side, compile, ms: known.length > 0 ? median(known) : null };
      }
    }
  }
}

export function modelTable(rows: readonly ModelRow[]): string {
  const gigabytes = (bytes: number) => (bytes / 1e9).toFixed(2);
  const cells = rows.map((row) => [
    row.variant,
    `${row.side}x${row.side}`,
    row.stepMs.toFixed(2),
    row.textMs.toFixed(1),
    row.decodeMs.toFixed(1),
    (row.imageMs / 1e3).toFixed(3),
    gigabytes(row.plannedBytes),
    row.measuredBytes === null ? "-" : gigabytes(row.measuredBytes),
  ]);
  const seconds = `${rows[0]?.steps ?? 0} steps and all, s`;
  const heads = ["settings", "size", "step ms", "text ms", "VAE ms", seconds];
  return renderTable([...heads, "planned GB", "measured GB"], cells);
}

export function peerTable(rows: readonly PeerRow[]): string {
  const names = { unet: "UNet step", vae: "VAE decode", text: "texts", image: "steps and VAE" };
  const cells = rows.map(({ what, side, compile, ms }) => [
    names[what],
    `${side}x${side}`,
    compile === "" ? "eager" : `compiled, ${compile}`,
    ms?.toFixed(2) ?? "-",
  ]);
  return renderTable(["PyTorch, f16", "size", "how", "ms"], cells);
}

/** Both guidance branches on every rank unless split. */
export async function open(
  model: Model,
  side: number,
  rankCount: number,
  splitBatch: boolean,
  gpu: GpuOptions,
): Promise<Session> {
  return await openSession({
    model,
    rankCount,
    splitBatch,
    gpu,
    width: side,
    height: side,
    threadCount: 0,
    guidance: true,
    imageCount: 1,
  });
}

/** A request of fixed token ids: the image is meaningless. */
export function requestFor(
  model: Model,
  width: number,
  height: number,
  steps: number,
): ImageRequest {
  const schedule = makeSchedule("euler", model.scheduler, { stepCount: steps });
  const ids = new Int32Array(promptTokenCount).fill(5);
  const prompt = { ids, ids2: ids.slice(), endIndex2: ids.length - 1 };
  return {
    width,
    height,
    prompt,
    negative: prompt,
    guidanceScale: 5,
    steps: schedule.steps,
    initNoiseSigma: schedule.initNoiseSigma,
    seeds: [1n],
    syncMode: "corrected_async_gn",
    warmupSteps: 1,
    splitBatch: false,
    wantLatents: false,
  };
}

/** The last of several images: all CUDA graphs have been captured and replayed by then. */
export async function warmImage(
  session: Session,
  model: Model,
  side: number,
  steps: number,
  { warmups, ...change }: Partial<ImageRequest> & { warmups: number },
): Promise<ImageResult> {
  const run = (count: number) =>
    session.image({ ...requestFor(model, side, side, count), ...change });
  for (let i = 0; i < warmups; i++) await run(Math.min(warmSteps, steps));
  return await run(steps);
}

export const warmupsDefault = 3;

/** Number of warm-up steps that are not timed. */
export const stepsBefore = 3;

export function timesOf({ timings }: ImageResult) {
  const { stepMs, textMs, denoiseMs, decodeMs } = timings;
  const later = stepMs.slice(Math.min(stepsBefore, stepMs.length - 1));
  return {
    stepMs: median(later),
    textMs,
    decodeMs,
    imageMs: textMs + denoiseMs + decodeMs,
  };
}

// --- internal ---

const warmSteps = 4;

function plannedFor(model: Model, side: number, dtype: GpuDtype): number {
  const size = { width: side, height: side };
  const plan = planFor({ model, ...size, rankCount: 1, splitBatch: false, dtype });
  return memoryOf(plan.weight_bytes, plan.passes[0]!.ranks[0]!).total;
}

/** Memory in use beyond a plan (driver, other processes), measured with a tiny model. */
async function tinyExtra(gpu: GpuOptions): Promise<number | null> {
  const model = await openModelFolder(goldenModel);
  const side = model.sizeMultiple;
  const session = await open(model, side, 1, false, gpu);
  try {
    const { deviceBytes } = await session.image(requestFor(model, side, side, 1));
    return deviceBytes === 0 ? null : deviceBytes - plannedFor(model, side, gpu.dtype);
  } finally {
    await session.close();
  }
}
