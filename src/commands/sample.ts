/**
 * `basedxl sample`: flags in, image files out. Flags become values (`settings/options.ts`), values
 * a checked request (`pipeline/request.ts`), the pipeline generates its images, and
 * `sample-files.ts` writes them; this file owns what the user sees.
 */
import { resolve } from "node:path";
import { defineCommand } from "citty";
import { chooseDevice, type DeviceChoice } from "../devices.ts";
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
import { type ModelFolder, openModelFolder } from "../models/folder.ts";
import { type ModelLocation, resolveModelPath } from "../models/locate.ts";
import { probeDevice } from "../native/device-info.ts";
import { emulatorPath, prepareDevice } from "../native/library.ts";
import { type PlannedRequest, planRequest } from "../pipeline/request.ts";
import { medianMs } from "../pipeline/timings.ts";
import { type GeneratedImage, type GenerateResult, Pipeline } from "../pipeline.ts";
import { resources } from "../resources.ts";
import { parseSampleOptions, requestOf, type SampleOptions } from "../settings/options.ts";
import { reportOf } from "../settings/report.ts";
import { sampleFlags } from "../settings/sample-flags.ts";
import { asFlag } from "../settings/values.ts";
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

/** A request that can be generated, with all that it needs. */
interface Prepared {
  model: ModelFolder;
  request: PlannedRequest;
  /** With the ranks of this process, where there are several. */
  choice: DeviceChoice;
  /** Ranks of all processes. */
  rankCount: number;
  /** CPU threads of this one. */
  threadCount: number;
  /** null where this is the only process. */
  group: ProcessGroup | null;
  peers: PeerGroup | null;
}

async function sample(options: SampleOptions, output: Output, signal: AbortSignal): Promise<void> {
  const startMs = performance.now();
  const prepared = await prepare(options, output, signal);
  const { group, peers } = prepared;
  await runTogether(peers, signal, async (both) => {
    if (group === null || group.index === 0) {
      return await generateAndWrite(options, prepared, output, both, startMs);
    }
    await generate(prepared, output, both, () => {});
  });
  if (group === null || group.index === 0) return;
  output.progress.clear();
  const name = describeProcess(group, group.index);
  output.log.info(`${name} has generated its share; process 0 writes the image.`);
  if (options.json) writeJson({ process: group.index, processes: group.count, images: [] });
}

/** Checks files, model, devices and request before weights load, and finds the other processes. */
async function prepare(
  options: SampleOptions,
  output: Output,
  signal: AbortSignal,
): Promise<Prepared> {
  const group = findProcessGroup(options, process.env);
  const writes = group === null || group.index === 0;
  if (writes) checkFiles(options);
  const location = resolveModelPath(options.model, process.env);
  const model = await openModelFolder(location.path);
  const rankCount = group?.rankCount ?? options.rankCount;
  const asked = requestOf(options);
  const request = planRequest(
    { ...asked, wantLatents: writes && asked.wantLatents },
    model,
    rankCount,
    asFlag,
  );
  const info = probeDevice();
  await prepareDevice(options.device, output.log.info);
  const choice = chooseDevice(options, info, emulatorPath);
  const encoderNote = writes ? await checkEncoder(options.outPath) : null;

  const { threadCount } = options;
  const alone = { model, request, choice, rankCount, threadCount, group, peers: null };
  const prepared = group ? await join(alone, group, options, output.log, signal) : alone;
  const { log } = output;
  log.info(describeModel(location, model, options));
  if (choice.line !== null) log.info(choice.line);
  log.debug(`CPU: ${info.cpuName}, ${info.instructionSet}, ${info.coreCount} cores.`);
  if (encoderNote !== null) log.warn(encoderNote);
  for (const warning of request.warnings) log.warn(warning);
  log.info(describe(prepared.request));
  // Without its random seed an image cannot be made again: even --quiet prints it.
  if (options.quiet && !options.json && options.seedIsRandom && writes) {
    process.stderr.write(`seed ${options.seed}\n`);
  }
  return prepared;
}

/** Waits for the other processes; a random seed is that of process 0. */
async function join(
  prepared: Prepared,
  group: ProcessGroup,
  options: SampleOptions,
  log: Output["log"],
  signal: AbortSignal,
): Promise<Prepared> {
  const { model, choice, request } = prepared;
  const { index, count, host, port } = group;
  const others = index === 0 ? `${count - 1} more on port ${port}` : `process 0 at ${host}:${port}`;
  log.info(`${describeProcess(group, index)} of ${count} processes: waiting for ${others}.`);
  const { seed, gpu, peers } = await joinProcessGroup(group, request, {
    version: resources.versions().basedxl,
    model,
    gpu: choice.gpu,
    seedIsRandom: options.seedIsRandom,
    signal,
    env: process.env,
    onRefusal: (sentence) => log.warn(sentence),
  });
  const { wantLatents } = request;
  const asked = { ...requestOf({ ...options, seed }), wantLatents };
  const agreed = planRequest(asked, model, prepared.rankCount, asFlag);
  return { ...prepared, request: agreed, choice: { ...choice, gpu }, peers };
}

type Generated = GenerateResult & { loadMs: number };

/** One job in a pipeline of its own; `onImage` takes the images one by one. */
async function generate(
  { model, request, choice, rankCount, threadCount }: Prepared,
  { log, progress, showsProgress }: Output,
  signal: AbortSignal,
  onImage: (image: GeneratedImage) => void | Promise<void>,
): Promise<Generated> {
  const show = (update: ShownProgress) => {
    if (showsProgress) progress.update(update);
  };
  const startMs = performance.now();
  await using pipeline = await Pipeline.open({
    model,
    devices: { ...choice, rankCount },
    threadCount,
    first: request,
    onProgress: show,
    signal,
  });
  const loadMs = performance.now() - startMs;
  const result = await pipeline.generate(request, {
    signal,
    keepImages: false,
    onEvent: (event) => {
      if (event.type === "image") return onImage(event);
      if (event.type === "progress") show(event);
      else if (event.type === "start") log.info(`${event.layout}.`);
      else if (event.type === "warning" && !request.warnings.includes(event.message)) {
        log.warn(event.message);
      }
    },
  });
  return { ...result, loadMs };
}

async function generateAndWrite(
  options: SampleOptions,
  prepared: Prepared,
  output: Output,
  signal: AbortSignal,
  startMs: number,
): Promise<void> {
  const { log } = output;
  const { settings } = prepared.request;
  const writer = new ImageWriter(options, settings, signal);
  const { imageCount } = settings;
  const result = await generate(prepared, output, signal, async (image) => {
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
    const report = jsonOf(options, prepared, result, writer);
    writeJson({ ...report, timings: times, warnings: result.warnings });
  }
}

function describeModel({ bundled }: ModelLocation, model: ModelFolder, options: SampleOptions) {
  if (bundled) {
    const { width, height } = model.nativeSize;
    return `No --model given: generating with the bundled ${model.name} (${width}x${height} images \
of simple scenes). For a real model: --model PATH to a diffusers folder.`;
  }
  return `Model: ${model.path}${options.model === undefined ? " (from BASEDXL_MODEL)" : ""}.`;
}

function describe({ settings }: PlannedRequest): string {
  const { prompt, width, height, stepCount, scheduler, guidanceScale } = settings;
  const { seed, imageCount, batchSize } = settings;
  const steps = stepCount === 1 ? "1 step" : `${stepCount} steps`;
  const together = batchSize === 1 ? "" : `, ${batchSize} at a time`;
  const several = imageCount === 1 ? "" : `${imageCount} images${together}, `;
  const last = seed + BigInt(imageCount - 1);
  const seedText = imageCount === 1 ? `seed ${seed}` : `seeds ${seed} to ${last}`;
  const shown = prompt.length > 200 ? `${prompt.slice(0, 200)} ...` : prompt;
  return `Generating ${JSON.stringify(shown)}: ${several}${width}x${height}, ${steps} of \
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
  { model, request, choice, rankCount }: Prepared,
  { extrapolateHalos, layout }: GenerateResult,
  writer: ImageWriter,
) {
  const images = writer.toJson();
  const { latentsPath } = options;
  const settings = reportOf({
    ...options,
    ...request.settings,
    model: model.path,
    device: choice.device,
    dtype: choice.gpu?.dtype ?? choice.dtype,
    rankCount,
    extrapolateHalos,
    latentsPath: latentsPath === undefined ? undefined : resolve(latentsPath),
  });
  return { ...images[0], images, ...settings, layout };
}
