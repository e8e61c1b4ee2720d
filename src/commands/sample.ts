/**
 * `basedxl sample`: flags in, image files out. The flags (`settings/options.ts`) are a request to
 * the public API (`pipeline.ts`), which generates the images; `sample-files.ts` writes them. With
 * RANK and WORLD_SIZE set, `distributed.ts` joins the other processes before weights load. This
 * file has what the user sees: messages, progress, and the object of `--json`.
 */
import { resolve } from "node:path";
import { defineCommand } from "citty";
import {
  describeProcess,
  joinProcessGroup,
  type PeerGroup,
  type ProcessGroup,
  processEnvironment,
  processGroupOf,
  runTogether,
} from "../distributed.ts";
import { BasedXLError, badOption } from "../errors.ts";
import { imageBytesMax } from "../image/read.ts";
import { collectLimited, TooLong } from "../limited-read.ts";
import { type RecalledImage, recallImage, startHashing, textsOfImage } from "../metadata.ts";
import {
  dtypeOf,
  estimate,
  finalSize,
  type GenerateResult,
  medianMs,
  Pipeline,
  type PipelineEvent,
  type PreparedPipeline,
  preparePipeline,
  reportEmbeddings,
  reportLoras,
} from "../pipeline.ts";
import { resources } from "../resources.ts";
import {
  explicitSettings,
  parseSampleOptions,
  type SampleArgs,
  type SampleOptions,
} from "../settings/options.ts";
import { reportOf } from "../settings/report.ts";
import { sampleFlags } from "../settings/sample-flags.ts";
import { withPrompts } from "../settings/sample-prompts.ts";
import { describeSamplers } from "../settings/samplers.ts";
import { parseAxes } from "../sheets.ts";
import { listSeparator } from "../terminal/flags.ts";
import { createOutput, type Output, writeJson } from "../terminal/output.ts";
import type { ShownProgress } from "../terminal/progress.ts";
import { formatSeconds } from "../terminal/units.ts";
import { describe, prepareOptionsOf, textsLeftOut, waitForHashes } from "./announce.ts";
import { sampleCells } from "./cells.ts";
import { planJson, planLines } from "./plan-text.ts";
import { PreviewWriter } from "./previews.ts";
import { ImageWriter } from "./sample-files.ts";
import { gridOf } from "./sheet-files.ts";
import { runStoppable } from "./stoppable.ts";

/** Resolves to the exit code; errors that are not a stop by signal are thrown on. */
export const sampleCommand = defineCommand({
  meta: { name: "sample", description: "Generate images from a prompt" },
  args: sampleFlags,
  async run({ args }) {
    const recalled = await recalledOf(args);
    const given = parseSampleOptions(args, { recalled: recalled ?? undefined });
    if (given.listSchedulers) {
      process.stdout.write(`${describeSamplers()}\n`);
      return 0;
    }
    const output = createOutput(given);
    if (recalled !== null) output.log.info(`Settings of an image of ${recalled.tool}.`);
    for (const warning of recalled?.warnings ?? []) output.log.warn(warning);
    if (given.xyz !== undefined) {
      const inputs = await withStandardInput(given);
      return await runStoppable(output, (signal) => sampleCells(inputs, output, signal));
    }
    const options = await withStandardInput(withPrompts(given));
    return await runStoppable(output, (signal) => sample(options, output, signal));
  },
});

// --- internal ---

/** What the image of --from-image says; null without the flag. */
async function recalledOf(args: SampleArgs): Promise<RecalledImage | null> {
  const { "from-image": path, "models-dir": folders } = args;
  if (typeof path !== "string") return null;
  const modelsDir = typeof folders === "string" ? folders.split(listSeparator) : undefined;
  const device = typeof args.device === "string" ? args.device : undefined;
  // An axis overrides what the image says, as its flag does.
  const axes = typeof args.xyz === "string" ? parseAxes(args.xyz) : [];
  const explicit = new Set([...explicitSettings(args), ...axes.flatMap(({ keys }) => keys)]);
  return await recallImage(path, { modelsDir, explicit, device });
}

/** The bytes of standard input in the place of an image that is named "-". */
async function withStandardInput(options: SampleOptions): Promise<SampleOptions> {
  const { image, mask } = options;
  if (image !== "-" && mask !== "-") return options;
  if (image === mask) {
    throw badOption("--image and --mask are both from standard input: one of them can be.");
  }
  const bytes = await imageOfInput();
  return { ...options, ...(image === "-" ? { image: bytes } : { mask: bytes }) };
}

async function imageOfInput(): Promise<Uint8Array> {
  try {
    return await collectLimited(Bun.stdin.stream(), imageBytesMax);
  } catch (error) {
    if (!(error instanceof TooLong)) throw error;
    throw badOption(`The image of standard input cannot be read: ${error.message}.`);
  }
}

async function sample(options: SampleOptions, output: Output, signal: AbortSignal): Promise<void> {
  const startMs = performance.now();
  const { log } = output;
  const found = processEnvironment(process.env);
  const group = found && processGroupOf(found, options);
  if (group !== null && options.dynamicPrompts && options.seedIsRandom) {
    throw new BasedXLError("bad-option", "--dynamic-prompts of several processes needs --seed.");
  }
  const writes = group === null || group.index === 0;
  const first = { ...options, wantLatents: writes && options.wantLatents };
  const alone = await preparePipeline({
    ...prepareOptionsOf(options, output, signal),
    ...{ first, processCount: group?.count },
  });
  output.progress.clear();
  if (options.plan) return printPlan(alone, output, options);
  const size = finalSize(alone.plan);
  const writer = writes ? await ImageWriter.open(options, size) : null;
  const joined = group && (await join(group, alone, options, output, signal));
  const { prepared, peers } = joined ?? { prepared: alone, peers: null };
  describe(prepared, options, output);
  if (writer?.warning) log.warn(writer.warning);
  // Without its random seed an image cannot be made again: even --quiet prints it.
  if (writer && options.quiet && !options.json && options.seedIsRandom) {
    process.stderr.write(`seed ${prepared.plan.settings.seed}\n`);
  }

  await runTogether(peers, signal, async (both) => {
    if (writer === null) await generate(prepared, output, both, {});
    else await generateAndWrite(options, prepared, writer, output, both, startMs);
  });
  if (group === null || writes) return;
  output.progress.clear();
  const name = describeProcess(group, group.index);
  log.info(`${name} has generated its share; process 0 writes the image.`);
  if (options.json) writeJson({ process: group.index, processes: group.count, images: [] });
}

function printPlan(prepared: PreparedPipeline, output: Output, options: SampleOptions): void {
  describe(prepared, options, output);
  const plan = estimate(prepared);
  if (options.json) writeJson(planJson(plan));
  else process.stdout.write(`${planLines(plan).join("\n")}\n`);
}

/** Waits for the other processes, which take a random seed from process 0. */
async function join(
  group: ProcessGroup,
  prepared: PreparedPipeline,
  { seedIsRandom }: SampleOptions,
  { log, progress }: Output,
  signal: AbortSignal,
): Promise<{ prepared: PreparedPipeline; peers: PeerGroup }> {
  const { index, count, host, port } = group;
  const others = index === 0 ? `${count - 1} more on port ${port}` : `process 0 at ${host}:${port}`;
  log.info(`${describeProcess(group, index)} of ${count} processes: waiting for ${others}.`);
  return await joinProcessGroup(group, prepared, {
    version: resources.versions().basedxl,
    seedIsRandom,
    signal,
    env: process.env,
    // Nobody could join without it: even --quiet prints it.
    onSecret: (sentence) => progress.line(sentence),
    onRefusal: (sentence) => log.warn(sentence),
  });
}

type Generated = GenerateResult & { loadMs: number };

interface Handlers {
  /** Gets the images one by one. */
  onImage?: (image: PipelineEvent & { type: "image" }) => void | Promise<void>;
  previews?: PreviewWriter | undefined;
  previewSteps?: number | undefined;
}

/** Loads the model and runs one job. */
async function generate(
  prepared: PreparedPipeline,
  { log, progress, showsProgress }: Output,
  signal: AbortSignal,
  { onImage = () => {}, previews, previewSteps }: Handlers,
): Promise<Generated> {
  const { plan } = prepared;
  const show = (update: ShownProgress) => {
    if (showsProgress) progress.update(update);
  };
  const startMs = performance.now();
  await using pipeline = await Pipeline.load(prepared, { onProgress: show, signal });
  const loadMs = performance.now() - startMs;
  for (const note of pipeline.weightNotes) log.debug(note);
  const result = await pipeline.generate(plan, {
    signal,
    keepImages: false,
    previewSteps,
    onEvent: (event) => {
      if (event.type === "preview") return previews?.show(event);
      if (event.type === "image") return onImage(event);
      if (event.type === "progress") show(event);
      else if (event.type === "start") log.info(`${event.layout}.`);
      // `describe` has shown those of the plan.
      else if (event.type === "warning" && !plan.warnings.includes(event.message)) {
        log.warn(event.message);
      }
    },
  });
  return { ...result, loadMs };
}

/** Generates, writes each image when it is ready, then reports times and files. */
async function generateAndWrite(
  options: SampleOptions,
  prepared: PreparedPipeline,
  writer: ImageWriter,
  output: Output,
  signal: AbortSignal,
  startMs: number,
): Promise<void> {
  const { log } = output;
  const { imageCount } = options;
  using hashes = options.metadata ? startHashing(prepared) : null;
  const { previewSteps } = options;
  const previews =
    previewSteps === undefined
      ? undefined
      : await PreviewWriter.open(writer.paths, output, options.previewProtocol);
  const grid = options.grid ? gridOf(options, prepared.plan) : null;
  const onImage = async (image: PipelineEvent & { type: "image" }) => {
    previews?.endImage();
    if (hashes !== null) await waitForHashes(hashes, output, signal);
    const texts = hashes === null ? undefined : textsOfImage(image, hashes);
    const { path, seed, hasTexts } = await writer.writeImage(image, signal, texts);
    if (!hasTexts) log.warn(textsLeftOut(path));
    if (imageCount > 1) log.info(`Wrote ${path}, seed ${seed}.`);
    await grid?.add(image, texts);
  };
  let result: Generated;
  try {
    result = await generate(prepared, output, signal, { onImage, previews, previewSteps });
  } finally {
    output.progress.clear();
    // A run that was stopped keeps what there is.
    if (await grid?.write()) log.info(`Wrote ${grid?.path}.`);
  }

  await writer.writeLatents(result);
  const { loras, embeddings } = prepared.plan;
  if (loras.length > 0) log.info(describeMerging(loras.length, result.timings.adaptMs));
  const times = timesOf(result, writer.writeMs, performance.now() - startMs, loras.length > 0);
  const what = imageCount === 1 ? options.outPath : `${imageCount} images`;
  log.info(`Wrote ${what} in ${formatSeconds(times.total_ms / 1000)}.`);
  log.debug(describeTimes(times));
  if (options.json) {
    const report = jsonOf(options, prepared, result, writer);
    writeJson({
      ...report,
      ...(grid !== null && { grid: resolve(grid.path) }),
      loras: await reportLoras(loras, (path, start) => hashes?.of(path, start) ?? null),
      embeddings: reportEmbeddings(embeddings.used),
      timings: times,
      warnings: [...(options.recallWarnings ?? []), ...result.warnings],
    });
  }
}

/** As `--json` prints them. */
interface Times {
  load_ms: number;
  /** Only with LoRAs. */
  adapt_ms?: number;
  text_ms: number;
  /** Only with an image to start from. */
  encode_ms?: number;
  denoise_ms: number;
  decode_ms: number;
  write_ms: number;
  total_ms: number;
  step_ms_median: number;
}

function timesOf(
  { timings, loadMs }: Generated,
  writeMs: number,
  totalMs: number,
  hasLoras: boolean,
): Times {
  const round = (ms: number) => Math.round(ms * 10) / 10;
  return {
    load_ms: round(loadMs),
    ...(hasLoras && { adapt_ms: round(timings.adaptMs) }),
    text_ms: round(timings.textMs),
    ...(timings.encodeMs > 0 && { encode_ms: round(timings.encodeMs) }),
    denoise_ms: round(timings.denoiseMs),
    decode_ms: round(timings.decodeMs),
    write_ms: round(writeMs),
    total_ms: round(totalMs),
    step_ms_median: round(medianMs(timings.stepMs)),
  };
}

/** "Merging 2 LoRAs took 3.1 s." */
function describeMerging(count: number, adaptMs: number): string {
  const what = count === 1 ? "the LoRA" : `${count} LoRAs`;
  return `Merging ${what} took ${formatSeconds(adaptMs / 1000)}.`;
}

function describeTimes(times: Times): string {
  const parts = (["load", "text", "denoise", "decode", "write"] as const).map(
    (stage) => `${stage} ${formatSeconds(times[`${stage}_ms`] / 1000)}`,
  );
  return `Times: ${parts.join(", ")}; median step ${formatSeconds(times.step_ms_median / 1000)}.`;
}

/** What a rank did in the denoising loop; bytes are those received from other ranks. */
function rankJson(rank: GenerateResult["ranks"][number]) {
  return {
    compute_ms: rank.computeMs,
    wait_ms: rank.waitMs,
    unet_rows: rank.unetRows,
    keys_values_bytes: rank.keysValuesBytes,
    halo_bytes: rank.haloBytes,
    statistics_bytes: rank.statisticsBytes,
    gather_bytes: rank.gatherBytes,
  };
}

/** `path` and `seed` are those of the first image, for scripts that ask for one. */
function jsonOf(
  options: SampleOptions,
  { model, refiner, vae, plan, devices, rankCount }: PreparedPipeline,
  { extrapolateHalos, layout, ranks, reusedSteps, balance, warmupSteps }: GenerateResult,
  writer: ImageWriter,
) {
  const images = writer.toJson();
  const { latentsPath } = options;
  const settings = reportOf({
    ...options,
    ...plan.settings,
    // Reported by their hashes, which a file's name does not say.
    ...{ image: undefined, mask: undefined },
    model: model.path,
    ...{ vae: vae?.path, refiner: refiner?.path },
    predictionType: model.scheduler.predictionType,
    rescaleBetasZeroSnr: model.scheduler.rescaleBetasZeroSnr,
    device: devices.device,
    dtype: dtypeOf(devices),
    rankCount,
    extrapolateHalos,
    balance,
    warmupSteps,
    latentsPath: latentsPath === undefined ? undefined : resolve(latentsPath),
  });
  const how = { layout, reused_steps: reusedSteps, rank_stats: ranks.map(rankJson) };
  return { ...images[0], images, ...settings, ...how };
}
