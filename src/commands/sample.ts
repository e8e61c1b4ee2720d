/**
 * `basedxl sample`: flags in, image files out. This file owns what the user sees; drawing itself
 * is `generate.ts`, checks of flags are `options.ts`, and files are `sample-files.ts`.
 */
import { resolve } from "node:path";
import { defineCommand } from "citty";
import type { DeviceChoice } from "../devices.ts";
import { chooseDevice } from "../devices.ts";
import type { PeerGroup } from "../distributed/peer-group.ts";
import type { ProcessGroup } from "../distributed.ts";
import {
  describeProcess,
  findProcessGroup,
  joinProcessGroup,
  runTogether,
} from "../distributed.ts";
import { BasedXLError } from "../errors.ts";
import { checkEncoder } from "../image.ts";
import { openModelFolder } from "../models/folder.ts";
import { resolveModelPath } from "../models/locate.ts";
import { probeDevice } from "../native/device-info.ts";
import { emulatorPath } from "../native/library.ts";
import type { GeneratedImage } from "../pipeline/events.ts";
import type { GenerateResult } from "../pipeline/job.ts";
import type { SampleRequest } from "../pipeline/request.ts";
import { medianMs } from "../pipeline/timings.ts";
import { Pipeline } from "../pipeline.ts";
import { resources } from "../resources.ts";
import type { ResolvedRequest, SampleOptions } from "../settings/options.ts";
import { parseSampleOptions, resolveRequest } from "../settings/options.ts";
import { sampleFlags } from "../settings/sample-flags.ts";
import type { Output } from "../terminal/output.ts";
import { createOutput, writeJson } from "../terminal/output.ts";
import { formatSeconds, type ShownProgress } from "../terminal/progress.ts";
import { exitCodeOfSignal, watchStopSignals } from "../terminal/signals.ts";
import { checkFiles, ImageWriter } from "./sample-files.ts";

/** Resolves to the exit code; errors that are not a stop by signal are thrown on. */
export const sampleCommand = defineCommand({
  meta: { name: "sample", description: "Generate images from a prompt" },
  args: sampleFlags,
  async run({ args }) {
    const options = parseSampleOptions(args);
    const output = createOutput(options);
    const watch = watchStopSignals(() => {
      output.progress.clear();
      output.log.info("Stopping ...");
    });
    try {
      await sample(options, output, watch.signal);
      return 0;
    } catch (error) {
      output.progress.clear();
      const stoppedBy = watch.stoppedBy();
      const cancelled = error instanceof BasedXLError && error.code === "cancelled";
      if (stoppedBy === null || !cancelled) throw error;
      if (options.json) writeJson({ error: { code: error.code, message: error.message } });
      return exitCodeOfSignal[stoppedBy];
    } finally {
      watch.release();
    }
  },
});

// --- internal ---

/** Draws, writes and tells. Everything that can be checked is checked before weights load. */
async function sample(options: SampleOptions, output: Output, signal: AbortSignal): Promise<void> {
  const startMs = performance.now();
  const prepared = await prepare(options, output, signal);
  if (prepared.group !== null && prepared.group.index > 0) {
    return await assist(options, prepared, prepared.group, output, signal);
  }
  await runTogether(prepared.peers, signal, (both) =>
    drawAndWrite(options, prepared, output, both, startMs),
  );
}

async function drawAndWrite(
  options: SampleOptions,
  { request, warnings, device }: Prepared,
  output: Output,
  signal: AbortSignal,
  startMs: number,
): Promise<void> {
  const { log } = output;
  const writer = new ImageWriter(options, request, signal);
  const imageCount = request.seeds.length;
  const result = await generate(request, output, signal, async (image) => {
    const { path, seed } = await writer.writeImage(image);
    if (imageCount > 1) log.info(`Wrote ${path}, seed ${seed}.`);
  });
  output.progress.clear();

  await writer.writeLatents(result);
  const times = timesOf(result, writer.writeMs, performance.now() - startMs);
  const what = imageCount === 1 ? options.outPath : `${imageCount} images`;
  log.info(`Wrote ${what} in ${formatSeconds(times.total_ms / 1000)}.`);
  log.debug(describeTimes(times));
  if (options.json) {
    const all = [...warnings, ...result.warnings];
    const told = jsonOf(options, request, result, writer);
    writeJson({ ...told, device, timings: times, warnings: all });
  }
}

/** Generates this process's share of the images that process 0 writes. */
async function assist(
  options: SampleOptions,
  { request, peers }: Prepared,
  group: ProcessGroup,
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  await runTogether(peers, signal, (both) =>
    generate({ ...request, wantLatents: false }, output, both, () => {}),
  );
  output.progress.clear();
  const { index, count } = group;
  output.log.info(
    `${describeProcess(group, index)} has generated its share; process 0 writes the image.`,
  );
  if (options.json) writeJson({ process: index, processes: count, images: [] });
}

type Generated = GenerateResult & { loadMs: number };

/** One job in a pipeline of its own; `onImage` takes the images one by one. */
async function generate(
  request: SampleRequest,
  { log, progress, showsProgress }: Output,
  signal: AbortSignal,
  onImage: (image: GeneratedImage) => void | Promise<void>,
): Promise<Generated> {
  const show = (update: ShownProgress) => {
    if (showsProgress) progress.update(update);
  };
  const { model, threadCount } = request;
  const opened = { model, threadCount, devices: request, first: request };
  const startMs = performance.now();
  await using pipeline = await Pipeline.open({ ...opened, onProgress: show, signal });
  const loadMs = performance.now() - startMs;
  const result = await pipeline.generate(request, {
    signal,
    keepImages: false,
    onEvent: (event) => {
      if (event.type === "image") return onImage(event);
      if (event.type === "progress") show(event);
      else if (event.type === "warning") log.warn(event.message);
      else if (event.type === "start") log.info(`${event.layout}.`);
    },
  });
  return { ...result, loadMs };
}

interface Prepared extends ResolvedRequest {
  device: DeviceChoice["device"];
  /** null where this process draws alone. */
  group: ProcessGroup | null;
  peers: PeerGroup | null;
}

/** Checks files, model, device and request, and says what will be drawn, with whom. */
async function prepare(
  options: SampleOptions,
  { log }: Output,
  signal: AbortSignal,
): Promise<Prepared> {
  const group = findProcessGroup(options, process.env);
  const writes = group === null || group.index === 0;
  if (writes) checkFiles(options);
  const location = resolveModelPath(options.model, process.env);
  const model = await openModelFolder(location.path);
  const rankCount = group?.rankCount ?? options.rankCount;
  const resolved = resolveRequest({ ...options, rankCount }, model);
  const info = probeDevice();
  const choice = chooseDevice(options, info, emulatorPath);
  const encoderNote = writes ? await checkEncoder(options.outPath) : null;

  const { warnings } = resolved;
  const chosen = { ...resolved.request, gpu: choice.gpu, dtype: choice.dtype };
  const { request, peers } = group
    ? await gather(group, chosen, options, log, signal)
    : { request: chosen, peers: null };
  if (location.bundled) {
    const { width, height } = model.nativeSize;
    log.info(
      `No --model given: drawing with the bundled ${model.name} (${width}x${height} images of \
simple scenes). For a real model: --model PATH to a diffusers folder.`,
    );
  } else {
    const from = options.model === undefined ? " (from BASEDXL_MODEL)" : "";
    log.info(`Model: ${model.path}${from}.`);
  }
  if (choice.line !== null) log.info(choice.line);
  log.debug(`CPU: ${info.cpuName}, ${info.instructionSet}, ${info.coreCount} cores.`);
  if (encoderNote !== null) log.warn(encoderNote);
  for (const warning of warnings) log.warn(warning);
  log.info(describe(request));
  // A random seed is the only way back to a image: it is told even by --quiet.
  if (options.quiet && !options.json && options.seedIsRandom && writes) {
    process.stderr.write(`seed ${options.seed}\n`);
  }
  return { warnings, request, device: choice.device, group, peers };
}

async function gather(
  group: ProcessGroup,
  request: SampleRequest,
  { seedIsRandom }: SampleOptions,
  log: Output["log"],
  signal: AbortSignal,
) {
  const { index, count, host, port } = group;
  const others = index === 0 ? `${count - 1} more on port ${port}` : `process 0 at ${host}:${port}`;
  log.info(`${describeProcess(group, index)} of ${count} processes: waiting for ${others}.`);
  const version = resources.versions().basedxl;
  const onRefusal = (sentence: string) => log.warn(sentence);
  const { env } = process;
  return await joinProcessGroup(group, request, { version, seedIsRandom, signal, env, onRefusal });
}

function describe(request: SampleRequest): string {
  const { prompt, width, height, stepCount, scheduler, guidanceScale, seeds, batchSize } = request;
  const steps = stepCount === 1 ? "1 step" : `${stepCount} steps`;
  const together = batchSize === 1 ? "" : `, ${batchSize} at a time`;
  const several = seeds.length === 1 ? "" : `${seeds.length} images${together}, `;
  const seedText = seeds.length === 1 ? `seed ${seeds[0]}` : `seeds ${seeds[0]} to ${seeds.at(-1)}`;
  const shown = prompt.length > 200 ? `${prompt.slice(0, 200)} ...` : prompt;
  return `Drawing ${JSON.stringify(shown)}: ${several}${width}x${height}, ${steps} of \
${scheduler}, guidance ${guidanceScale}, ${seedText}.`;
}

/** As `--json` prints them. */
interface Times {
  load_ms: number;
  text_ms: number;
  denoise_ms: number;
  decode_ms: number;
  write_ms: number;
  total_ms: number;
  step_ms_median: number;
}

function timesOf({ timings, loadMs }: Generated, writeMs: number, totalMs: number): Times {
  const round = (ms: number) => Math.round(ms * 10) / 10;
  return {
    load_ms: round(loadMs),
    text_ms: round(timings.textMs),
    denoise_ms: round(timings.denoiseMs),
    decode_ms: round(timings.decodeMs),
    write_ms: round(writeMs),
    total_ms: round(totalMs),
    step_ms_median: round(medianMs(timings.stepMs)),
  };
}

function describeTimes(times: Times): string {
  const parts = (["load", "text", "denoise", "decode", "write"] as const).map(
    (stage) => `${stage} ${formatSeconds(times[`${stage}_ms`] / 1000)}`,
  );
  return `Times: ${parts.join(", ")}; median step ${formatSeconds(times.step_ms_median / 1000)}.`;
}

/** `path` and `seed` are those of the first image, for scripts that ask for one. */
function jsonOf(
  options: SampleOptions,
  request: SampleRequest,
  result: GenerateResult,
  writer: ImageWriter,
) {
  const images = writer.toJson();
  return {
    ...images[0],
    images,
    latents_path: options.latentsPath === undefined ? null : resolve(options.latentsPath),
    prompt: request.prompt,
    negative_prompt: request.negativePrompt,
    width: result.width,
    height: result.height,
    steps: request.stepCount,
    scheduler: request.scheduler,
    guidance_scale: request.guidanceScale,
    guidance_rescale: request.guidanceRescale ?? 0,
    rng: request.rng ?? "cpu",
    model: request.model.path,
    ranks: request.rankCount,
    layout: result.layout,
    sync_mode: request.syncMode,
    warmup_steps: request.warmupStepCount,
    split_batch: request.splitBatch,
    extrapolate_halos: result.extrapolateHalos,
    batch_size: request.batchSize,
    vae_tiling: request.vaeTiling,
    dtype: request.gpu?.dtype ?? request.dtype ?? "f32",
  };
}
