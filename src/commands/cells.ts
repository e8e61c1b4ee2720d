/**
 * `sample --xyz`: one image for every combination of values, and a sheet of them with labels. All
 * cells are planned before weights load; each is a job of its own, as if it were asked for alone.
 */
import { resolve } from "node:path";
import { processEnvironment, processGroupOf } from "../distributed.ts";
import { BasedXLError, badOption } from "../errors.ts";
import { type FileHashes, startHashing, textsOfImage } from "../metadata.ts";
import { imagesReader } from "../pipeline/read-images.ts";
import {
  finalSize,
  Pipeline,
  type PipelineEvent,
  type PlannedRequest,
  type PreparedPipeline,
  preparePipeline,
  reportLoras,
} from "../pipeline.ts";
import type { SampleOptions } from "../settings/options.ts";
import { withPrompts } from "../settings/sample-prompts.ts";
import { type Axis, type Cell, cellsOf, describeAxes, inRunOrder, parseAxes } from "../sheets.ts";
import { type Output, writeJson } from "../terminal/output.ts";
import { formatSeconds } from "../terminal/units.ts";
import { describe, prepareOptionsOf, textsLeftOut, waitForHashes } from "./announce.ts";
import { PreviewWriter } from "./previews.ts";
import { ImageWriter } from "./sample-files.ts";
import { SheetWriter } from "./sheet-files.ts";

type PlannedCell = Cell & { plan: PlannedRequest; index: number };
type ImageEvent = PipelineEvent & { type: "image" };

/** A run that is under way. */
interface Run {
  options: SampleOptions;
  axes: readonly Axis[];
  /** In the order of the sheet. */
  cells: readonly PlannedCell[];
  prepared: PreparedPipeline;
  sheet: SheetWriter;
  /** Null where the sheet alone is written. */
  writer: ImageWriter | null;
  hashes: FileHashes | null;
  /** For --json: those of the cells that are done, once each. */
  warnings: Set<string>;
  previews: PreviewWriter | undefined;
  output: Output;
  signal: AbortSignal;
}

export async function sampleCells(
  options: SampleOptions,
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  const startMs = performance.now();
  refuseOthers(options);
  const axes = parseAxes(options.xyz ?? "");
  const cells = cellsOf(axes, options).map((cell) => ({
    ...cell,
    options: withPrompts(cell.options),
  }));
  if (cells.length > cellCountMax) {
    throw badOption(`--xyz asks for ${cells.length} images: ${cellCountMax} are possible.`);
  }
  const first = inRunOrder(axes, cells)[0]!;
  const prepared = await naming(first, () =>
    preparePipeline({ ...prepareOptionsOf(options, output, signal), first: first.options }),
  );
  output.progress.clear();
  const planned = await planCells(cells, prepared);
  const sizes = planned.map(({ plan }) => finalSize(plan));
  const sheet = new SheetWriter(options.outPath, {
    columns: axes[0]!.values.map(({ label }) => label),
    rows: axes[1]?.values.map(({ label }) => label) ?? [""],
    blocks: axes[2]?.values.map(({ label }) => label) ?? [""],
    cellWidth: Math.max(...sizes.map(({ width }) => width)),
    cellHeight: Math.max(...sizes.map(({ height }) => height)),
  });
  const files = { ...options, imageCount: cells.length };
  const writer = options.cells ? await ImageWriter.open(files, sizes[0]!) : null;
  describe(prepared, options, output);
  if (writer?.warning) output.log.warn(writer.warning);
  announce(axes, planned, sheet, output);
  // Without it the images cannot be made again: even --quiet prints it.
  if (options.quiet && !options.json && options.seedIsRandom) {
    process.stderr.write(`seed ${options.seeds[0]}\n`);
  }
  using hashes = options.metadata ? startHashing({ ...prepared, plan: filesOf(planned) }) : null;
  const paths = writer?.paths ?? planned.map(() => options.outPath);
  const previews = options.previewSteps
    ? await PreviewWriter.open(paths, output, options.previewProtocol)
    : undefined;
  const warnings = new Set(options.recallWarnings);
  const shared = { options, axes, cells: planned, prepared, previews, warnings, output, signal };
  await generateCells({ ...shared, sheet, writer, hashes }, startMs);
}

// --- internal ---

const cellCountMax = 1000;

function refuseOthers(options: SampleOptions): void {
  const found = processEnvironment(process.env);
  if (found !== null && processGroupOf(found, options) !== null) {
    throw badOption("--xyz is for one process: leave RANK and WORLD_SIZE unset.");
  }
  if (options.imageCount > 1 || options.promptFile !== undefined) {
    const flag = options.imageCount > 1 ? "--num-images" : "--prompt-file";
    throw badOption(`--xyz makes one image of each combination: leave ${flag} out.`);
  }
  if (options.latentsPath !== undefined) throw badOption("--xyz writes no latents.");
}

/** Errors of a cell's request begin with its values. */
async function naming<T>({ values }: Cell, run: () => T | Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof BasedXLError) || error.code !== "bad-option") throw error;
    throw badOption(`--xyz with ${valuesText(values)}: ${error.message}`);
  }
}

function valuesText(values: Cell["values"]): string {
  return Object.entries(values)
    .map(([name, value]) => `${name}=${value}`)
    .join(", ");
}

async function planCells(
  cells: readonly Cell[],
  prepared: PreparedPipeline,
): Promise<PlannedCell[]> {
  const { request, plan } = prepared;
  const read = imagesReader(prepared, prepared);
  const planned: PlannedCell[] = [];
  for (const [index, cell] of cells.entries()) {
    const isFirst = cell.options === request;
    const own = isFirst
      ? plan
      : await naming(cell, async () =>
          Pipeline.plan(prepared, cell.options, await read(cell.options)),
        );
    planned.push({ ...cell, index, plan: own });
  }
  return planned;
}

/** The files of all cells, for their hashes. */
function filesOf(cells: readonly PlannedCell[]) {
  const loras = cells.flatMap(({ plan }) => plan.loras);
  return { loras, embeddings: { used: cells.flatMap(({ plan }) => plan.embeddings.used) } };
}

function announce(
  axes: readonly Axis[],
  cells: readonly PlannedCell[],
  { path, reduction }: SheetWriter,
  { log }: Output,
): void {
  const counts = axes.map(({ name, values }) => `${values.length} of ${name}`);
  log.info(`${cells.length} images (${counts.join(" x ")}), and their sheet ${path}.`);
  if (reduction > 1) log.warn(`The sheet has the images at 1/${reduction} of their size.`);
  const told = new Set(cells[0]?.plan.warnings);
  for (const { values, plan } of cells) {
    for (const warning of plan.warnings) {
      if (!told.has(warning)) log.warn(`${valuesText(values)}: ${warning}`);
      told.add(warning);
    }
  }
}

async function generateCells(run: Run, startMs: number): Promise<void> {
  const { axes, cells, prepared, sheet, output, signal } = run;
  const { log, progress, showsProgress } = output;
  await using pipeline = await Pipeline.load(prepared, {
    onProgress: (update) => {
      if (showsProgress) progress.update(update);
    },
    signal,
  });
  for (const note of pipeline.weightNotes) log.debug(note);
  const count = cells.length;
  let done = 0;
  try {
    for (const cell of inRunOrder(axes, cells) as PlannedCell[]) {
      const number = done + 1;
      const { warnings } = await pipeline.generate(cell.plan, {
        signal,
        keepImages: false,
        previewSteps: run.options.previewSteps,
        onEvent: async (event) => {
          const images = { first: number, last: number, count };
          if (event.type === "progress" && showsProgress) progress.update({ ...event, images });
          if (event.type === "preview") await run.previews?.show({ ...event, index: cell.index });
          if (event.type === "image") await keep(run, cell, event);
        },
      });
      for (const warning of warnings) run.warnings.add(warning);
      done += 1;
    }
  } finally {
    progress.clear();
    // A run that was stopped keeps what there is.
    const isWritten = await sheet.write(run.options.metadata ? describeAxes(axes) : "");
    const seconds = formatSeconds((performance.now() - startMs) / 1000);
    if (isWritten) log.info(`Wrote ${sheet.path}, ${done} of ${count} images, in ${seconds}.`);
  }
  if (run.options.json) writeJson(await reportCells(run));
}

async function keep(run: Run, cell: PlannedCell, image: ImageEvent): Promise<void> {
  const { sheet, writer, hashes, previews, output, signal } = run;
  previews?.endImage();
  if (hashes !== null) await waitForHashes(hashes, output, signal);
  const texts = hashes === null ? undefined : textsOfImage(image, hashes);
  const written = await writer?.writeImage(image, signal, texts, cell.index);
  await sheet.place(cell.place, image, texts);
  if (written === undefined) return;
  output.log.info(`Wrote ${written.path}: ${valuesText(cell.values)}.`);
  if (!written.hasTexts) output.log.warn(textsLeftOut(written.path));
}

/** Each image with the values of its axes, and the settings that it has beside the common ones. */
async function reportCells({ cells, sheet, writer, hashes, axes, warnings }: Run) {
  const images = cells.map(({ values, plan, index }) => {
    const { seed, stepCount, scheduler, guidanceScale, prompt } = plan.settings;
    const { width, height } = finalSize(plan);
    const path = writer?.paths[index];
    return {
      ...(path !== undefined && { path: resolve(path) }),
      seed: String(seed),
      axes: values,
      ...{ prompt, num_inference_steps: stepCount, scheduler, guidance_scale: guidanceScale },
      ...{ width, height },
    };
  });
  const loras = [...new Map(filesOf(cells).loras.map((each) => [each.path, each])).values()];
  return {
    grid: resolve(sheet.path),
    axes: axes.map(({ name, values }) => ({ name, values: values.map(({ text }) => text) })),
    images,
    loras: await reportLoras(loras, (path, start) => hashes?.of(path, start) ?? null),
    warnings: [...warnings],
  };
}
