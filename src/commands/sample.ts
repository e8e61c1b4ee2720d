/**
 * `basedxl sample`: flags in, one picture file out. This file owns what the user sees and the files
 * that are written; drawing itself is `generate.ts`, and checks of flags are `options.ts`.
 */
import { resolve } from "node:path";
import { defineCommand } from "citty";
import type { DeviceChoice } from "../devices.ts";
import { chooseDevice } from "../devices.ts";
import { BasedXLError } from "../errors.ts";
import type { GenerateRequest, GenerateResult } from "../generate.ts";
import { generate, medianMs } from "../generate.ts";
import { checkWritable, imageFormatOf, writeImage } from "../image.ts";
import { writeLatents } from "../latents.ts";
import { openModelFolder } from "../models/folder.ts";
import { resolveModelPath } from "../models/locate.ts";
import { openSession, probeDevice } from "../native/session.ts";
import type { ResolvedRequest, SampleOptions } from "../options.ts";
import { parseSampleOptions, resolveRequest } from "../options.ts";
import type { Output } from "../output.ts";
import { createOutput, writeJson } from "../output.ts";
import { formatSeconds } from "../progress.ts";
import { exitCodeOfSignal, watchStopSignals } from "../signals.ts";
import { sampleFlags } from "./sample-flags.ts";

/** Resolves to the exit code; errors that are not a stop by signal are thrown on. */
export const sampleCommand = defineCommand({
  meta: { name: "sample", description: "Draw one picture from a prompt" },
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
  const { log } = output;
  const { request, warnings, device } = await prepare(options, output);
  const result = await generate(request, {
    openSession,
    signal,
    onProgress: output.showsProgress ? (progress) => output.progress.update(progress) : undefined,
    onWarning: (warning) => log.warn(warning),
    onLayout: (layout) => {
      if (request.rankCount > 1) log.info(`${layout}.`);
      else log.debug(`${layout}.`);
    },
  });
  output.progress.clear();

  const writeStartMs = performance.now();
  await writeFiles(options, result, signal);
  const endMs = performance.now();
  const times = timesOf(result, endMs - writeStartMs, endMs - startMs);
  log.info(`Wrote ${options.outPath} in ${formatSeconds(times.total_ms / 1000)}.`);
  log.debug(describeTimes(times));
  if (options.json) {
    const all = [...warnings, ...result.warnings];
    const told = jsonOf(options, request, result);
    writeJson({ ...told, device, timings: times, warnings: all });
  }
}

interface Prepared extends ResolvedRequest {
  device: DeviceChoice["device"];
}

/** Checks files, model, device and request, and says what will be drawn. */
async function prepare(options: SampleOptions, { log }: Output): Promise<Prepared> {
  imageFormatOf(options.outPath);
  checkWritable(options.outPath);
  if (options.latentsPath !== undefined) checkWritable(options.latentsPath);

  const location = resolveModelPath(options.model, process.env);
  const model = await openModelFolder(location.path);
  const resolved = resolveRequest(options, model);
  const info = probeDevice();
  const choice = chooseDevice(options, info);

  const { request, warnings } = resolved;
  if (location.bundled) {
    const { width, height } = model.nativeSize;
    log.info(
      `No --model given: drawing with the bundled ${model.name} (${width}x${height} pictures of \
simple scenes). For a real model: --model PATH to a diffusers folder.`,
    );
  } else {
    const from = options.model === undefined ? " (from BASEDXL_MODEL)" : "";
    log.info(`Model: ${model.path}${from}.`);
  }
  if (choice.line !== null) log.info(choice.line);
  log.debug(`CPU: ${info.cpuName}, ${info.instructionSet}, ${info.coreCount} cores.`);
  for (const warning of warnings) log.warn(warning);
  log.info(describe(request));
  return { ...resolved, device: choice.device };
}

/** The latent first: when the picture is there, everything is. */
async function writeFiles(
  { outPath, latentsPath }: SampleOptions,
  { pixels, width, height, latents, latentShape }: GenerateResult,
  signal: AbortSignal,
): Promise<void> {
  if (latentsPath !== undefined && latents) await writeLatents(latentsPath, latents, latentShape);
  await writeImage(outPath, pixels, width, height, signal);
}

function describe(request: GenerateRequest): string {
  const { prompt, width, height, stepCount, scheduler, guidanceScale, seed } = request;
  const steps = stepCount === 1 ? "1 step" : `${stepCount} steps`;
  return `Drawing ${JSON.stringify(prompt)}: ${width}x${height}, ${steps} of ${scheduler}, \
guidance ${guidanceScale}, seed ${seed}.`;
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

function timesOf({ timings }: GenerateResult, writeMs: number, totalMs: number): Times {
  const round = (ms: number) => Math.round(ms * 10) / 10;
  return {
    load_ms: round(timings.loadMs),
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

function jsonOf(options: SampleOptions, request: GenerateRequest, result: GenerateResult) {
  return {
    path: resolve(options.outPath),
    latents_path: options.latentsPath === undefined ? null : resolve(options.latentsPath),
    prompt: request.prompt,
    negative_prompt: request.negativePrompt,
    seed: String(request.seed),
    width: result.width,
    height: result.height,
    steps: request.stepCount,
    scheduler: request.scheduler,
    guidance_scale: request.guidanceScale,
    model: request.model.path,
    ranks: result.rankCountUsed,
    layout: result.layout,
  };
}
