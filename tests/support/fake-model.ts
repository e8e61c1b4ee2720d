/**
 * A model folder without files and a session that generates nothing, for tests of the code around
 * it. The tokenizer makes one token per word, so that a test can count them.
 */

import { stopIfAborted } from "../../src/errors.ts";
import { parseSchedulerConfig } from "../../src/models/config-scheduler.ts";
import type { Model } from "../../src/models/model.ts";
import type { DeviceInfo } from "../../src/native/device-info.ts";
import type { OpenOptions } from "../../src/pipeline/open-options.ts";
import type { ImageHooks, ImageRequest, ImageResult } from "../../src/pipeline/session.ts";
import type { PipelineDependencies } from "../../src/pipeline.ts";
import type { PromptPart } from "../../src/prompt/tokenizer.ts";
import schedulerJson from "../fixtures/golden/model/scheduler/scheduler_config.json";

type OpenSession = PipelineDependencies["openSession"];

/** An SDXL-shaped folder: unit 32, native size 1024, no defaults of its own. */
export function fakeModel(changes: Partial<Model> = {}): Model {
  const tokenizer = { encode: encodeWords };
  const model: Partial<Model> = {
    path: "models/fake",
    name: "fake",
    kind: "base",
    clip: { vocabSize: 1000, hiddenSize: 8 } as Model["clip2"],
    clip2: { vocabSize: 1000, hiddenSize: 8 } as Model["clip2"],
    scheduler: parseSchedulerConfig("scheduler_config.json", schedulerJson),
    forceZerosForEmptyPrompt: true,
    tokenizer: tokenizer as Model["tokenizer2"],
    tokenizer2: tokenizer as Model["tokenizer2"],
    defaults: {},
    vaeFactor: 8,
    sizeMultiple: 32,
    nativeSize: { width: 1024, height: 1024 },
    ...changes,
  };
  return model as Model;
}

/** What a fake session was asked for, in order. */
export interface SessionLog {
  opened: OpenOptions[];
  images: ImageRequest[];
  closed: number;
}

/** A machine without GPUs. */
const machine: DeviceInfo = {
  cpuName: "CPU",
  instructionSet: "x86_64",
  coreCount: 2,
  hasBf16: false,
  gpuCount: 0,
  gpuName: "",
  cudaKernels: "",
  memoryAvailable: 0,
};

/**
 * A session opener that notes its calls, reports every stage, and fails with `error` if given. Its
 * images and latents contain only their seed.
 */
export function fakeOpener(error?: Error): PipelineDependencies & { log: SessionLog } {
  const log: SessionLog = { opened: [], images: [], closed: 0 };
  const open: OpenSession = async (options) => {
    log.opened.push(options);
    return {
      async image(request, hooks) {
        log.images.push(request);
        if (error) throw error;
        return await drawNothing(request, hooks);
      },
      upscale: () => Promise.reject(new Error("a fake session enlarges nothing")),
      async close() {
        log.closed++;
      },
    };
  };
  return { log, openSession: open, checkSession: async () => 0, probeDevice: () => machine };
}

// --- internal ---

async function drawNothing(
  { steps, width, height, seeds, wantLatents }: ImageRequest,
  { onProgress, signal }: ImageHooks = {},
): Promise<ImageResult> {
  const stepCount = steps.length;
  for (const stage of ["text", "denoise", "decode"] as const) {
    await onProgress?.({ stage, stepIndex: 0, stepCount, loadFraction: 1, adaptFraction: 1 });
    await Bun.sleep(0);
    stopIfAborted(signal);
  }
  const elementCount = (4 * height * width) / 64;
  const values = seeds.flatMap((seed) => Array<number>(elementCount).fill(Number(seed)));
  return {
    images: seeds.map((seed) => new Uint8Array(width * height * 3).fill(Number(seed))),
    width,
    height,
    latents: wantLatents ? Float32Array.from(values) : null,
    latentShape: [seeds.length, 4, height / 8, width / 8],
    timings: {
      adaptMs: 0,
      textMs: 1,
      encodeMs: 0,
      denoiseMs: 2,
      decodeMs: 3,
      stepMs: steps.map(() => 1),
    },
    image: null,
    ranks: [],
    found: { balance: null, warmupSteps: null },
    stepParts: [],
    deviceBytes: 0,
    merged: { weightCount: 0, bytes: 0 },
  };
}

/** Word i becomes token i + 1, between a begin (0) and an end (999); 75 words fit. */
function encodeWords(prompt: string | readonly PromptPart[]) {
  const texts = [prompt].flat().map((part) => (typeof part === "string" ? part : part.word));
  const words = texts
    .join(" ")
    .split(" ")
    .filter((word) => word !== "");
  const ids = new Int32Array(77).fill(999);
  ids[0] = 0;
  const kept = words.slice(0, 75);
  for (const index of kept.keys()) ids[index + 1] = index + 1;
  return { ids, truncated: words.slice(75).join(" "), endIndex: kept.length + 1 };
}
