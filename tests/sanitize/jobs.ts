/**
 * The jobs that sanitizers look at: small images of small models, in every way in which ranks
 * exchange, and with all that a request may bring. Files are written to `folder`.
 */
import { join } from "node:path";
import { goldenModel, writeGoldenModel } from "../../src/bench/support/golden-model.ts";
import { writeRandomLora } from "../../src/bench/support/random-lora.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import {
  type GenerateOptions,
  type GenerateRequest,
  Pipeline,
  type PipelineOptions,
} from "../../src/pipeline.ts";
import { resources } from "../../src/resources.ts";
import { syncModes } from "../../src/settings/names.ts";
import { controlHint } from "../support/control-hint.ts";
import { controlFolder, removeControls } from "../support/control-networks.ts";
import { colouredPng, squareMask } from "../support/input-images.ts";
import { ipImage, removeIpAdapters, writeIpAdapters } from "../support/ip-adapter-files.ts";
import { removeUpscalers, writeUpscaler } from "../support/upscaler-files.ts";
import type { Recorder } from "./record.ts";

export const side = 64;
const size = { width: side, height: side };
export const usual: GenerateRequest = {
  ...{ prompt: "a red circle", negativePrompt: "blurry", guidanceScale: 5, stepCount: 3 },
  ...{ seeds: [7n], splitBatch: false, warmupSteps: 1, ...size },
};

export type Place = Pick<PipelineOptions, "devices" | "threadCount">;

/** For memcheck: everything once. */
export async function recordSample(recorder: Recorder, folder: string): Promise<void> {
  writeGoldenModel();
  await recordBundled(recorder, onCpu(1));
  await recordRequests(recorder, folder, onCpu(2));
  await recordExchange(recorder, onCpu(3));
}

/** For ThreadSanitizer: ranks on threads, and as fibers. */
export async function recordRanks(recorder: Recorder, folder: string): Promise<void> {
  writeGoldenModel();
  for (const rankCount of [2, 4]) await recordExchange(recorder, onCpu(rankCount));
  await recordRequests(recorder, folder, onCpu(2));
}

/** Once nothing reads what the jobs name. */
export function removeFiles(): void {
  removeControls();
  removeIpAdapters();
  removeUpscalers();
}

// --- internal ---

/** On two threads: more ranks are fibers. */
function onCpu(rankCount: number): Place {
  return { devices: { device: "cpu", rankCount }, threadCount: 2 };
}

/** One session: every mode of exchange, the ways to send less, and adaptive choices. */
async function recordExchange(recorder: Recorder, place: Place): Promise<void> {
  const rankCount = place.devices?.rankCount ?? 1;
  const first = { ...usual, height: side * rankCount };
  const name = `${rankCount} ranks`;
  await recorded(recorder, { ...place, name, model: goldenModel, first }, async (run) => {
    for (const syncMode of syncModes) await run(syncMode, { syncMode });
    await run("8 bits", { compressExchange: "int8" });
    await run("reuse", { quality: "balanced", stepCount: 6 });
    await run("balance", { balance: "auto", stepCount: 6 });
    await run("batch", { splitBatch: true, seeds: [1n, 2n] });
  });
}

/** One session: adapters, networks, an image to start from, two passes, an upscaler. */
async function recordRequests(recorder: Recorder, folder: string, place: Place): Promise<void> {
  const lora = join(folder, "lora.safetensors");
  writeRandomLora(lora, await openModelFolder(goldenModel), /attn\d\.to_|conv1$/);
  const files = writeIpAdapters();
  const hint = controlHint(side, side);
  const image = await colouredPng(size);
  const start = { ...place, name: "requests", model: goldenModel, first: usual };
  await recorded(recorder, start, async (run, pipeline) => {
    await run("LoRA", { loras: [{ file: lora, scale: 0.7 }] });
    await run("another LoRA", { loras: [{ file: lora, scale: -0.5 }] });
    await run("ControlNets", {
      controlnet: [controlFolder("plain"), controlFolder("adapter")],
      controlImage: [hint, hint],
    });
    await run("IP-Adapter", { ipAdapter: [files.plus], ipImage: [ipImage(0)] });
    await run("image", { image, strength: 0.7 });
    await run("mask", { image, mask: await squareMask(size), strength: 0.7 });
    await run("second pass", { hires: 1.5, hiresUpscaler: "latent" });
    await run("ancestral, long prompt", {
      scheduler: "euler_a",
      prompt: "a (red:1.2) house, ".repeat(20),
    });
    recorder.name = "upscaler";
    await pipeline.upscale(hint, { upscaler: writeUpscaler("rrdbnet_x2"), tileSize: 128 });
  });
}

/** The bundled model with its ControlNet. */
async function recordBundled(recorder: Recorder, place: Place): Promise<void> {
  const controlnet = ["mini-outlines"];
  const first = { ...usual, controlnet, controlImage: [controlHint(side, side)] };
  const start = { ...place, name: "bundled model", model: resources.bundledModel(), first };
  await recorded(recorder, start, async (run) => {
    await run("ControlNet", {});
    await run("tiles", { vaeTiling: true });
  });
}

export type Run = (
  name: string,
  changes: Partial<GenerateRequest>,
  options?: GenerateOptions,
) => Promise<void>;

interface Start extends Place {
  name: string;
  model: string;
  first: GenerateRequest;
}

export async function recorded(
  recorder: Recorder,
  { name, model, first, ...place }: Start,
  use: (run: Run, pipeline: Pipeline) => Promise<void>,
): Promise<void> {
  recorder.name = name;
  await using pipeline = await Pipeline.open({ model, first, ...place });
  await use(async (part, changes, options) => {
    recorder.name = `${name}, ${part}`;
    await pipeline.generate({ ...first, ...changes }, options);
  }, pipeline);
}
