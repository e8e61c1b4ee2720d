/**
 * `bun run bench quality`: the error of images of several patches against those of one rank, in
 * every sync mode. Guidance branches are not split over ranks, since splitting is exact: ranks =
 * patches.
 */
import type { ArgsDef } from "citty";
import type { TopLevelSpec } from "vega-lite";
import { rankCountMax } from "../native/abi.ts";
import type { ImageResult } from "../pipeline/session.ts";
import { type SyncMode, syncModes } from "../settings/names.ts";
import { type HelpText, renderHelp } from "../terminal/help.ts";
import {
  type Flags,
  namesOf,
  readFlags,
  seedsOf,
  sharedFlags,
  textOf,
  wholeOf,
  wholesOf,
} from "./flags.ts";
import {
  type Case,
  extrapolatesFor,
  feasibleRankCounts,
  type Generation,
  generateImage,
  openRanks,
  readGeneration,
} from "./generation.ts";
import { type Image, psnr, ssim } from "./image-measures.ts";
import { machine, renderTable, writeReport } from "./report.ts";
import { relativeL2 } from "./support/compare.ts";
import { readPrompts } from "./support/prompt-file.ts";

const ranksDefault = [2, 4, 8];
const promptsDefault = [
  "a red house left of a green tree on the grass",
  "a large orange cat on a purple background",
  "a purple diamond in the desert at sunset",
];
const seedFirst = 42n;

const flagTexts = {
  ...sharedFlags,
  prompts: {
    type: "string",
    valueHint: "FILE",
    description: "One prompt per line; empty lines are skipped. Default: three of mini-sdxl's.",
  },
  seeds: {
    type: "string",
    valueHint: "LIST",
    description:
      "The first prompt uses the first seed and so on; the shorter list is repeated. " +
      `Default: ${seedFirst} and up, one per prompt.`,
  },
  ranks: {
    type: "string",
    valueHint: "LIST",
    description: `Patches. Default: those of ${ranksDefault} that the height allows.`,
  },
  "warmup-steps": {
    type: "string",
    valueHint: "N",
    description: "Synchronous steps after the first. Default: 4.",
  },
  "predict-borders": {
    type: "boolean",
    description:
      "Extrapolate stale halo rows; --no-predict-borders uses them unchanged, as DistriFusion " +
      "does. Default: as for sample.",
  },
} as const satisfies ArgsDef;

const help: HelpText = {
  usage: "bun run bench quality [flags]",
  summary:
    "Generates every prompt on one rank and in patches, and prints the error of the patches' " +
    "latents and images against one rank: relative L2, PSNR, SSIM.",
  examples: [
    "bun run bench quality",
    "bun run bench quality --model ~/models/sdxl-base --prompts prompts.txt --ranks 4",
    "bun run bench quality --modes corrected_async_gn,stale_gn --size 256x256 --warmup-steps 1",
  ],
  groups: [
    ["Images", ["prompts", "seeds", "model", "size", "guidance-scale"]],
    ["How", ["ranks", "modes", "steps", "warmup-steps", "predict-borders", "scheduler"]],
    ["Output", ["out", "help"]],
  ],
  notes: ["LPIPS is not measured: it needs another network."],
};

/** One mode with one number of patches; a value per case. */
interface Row {
  mode: SyncMode;
  patches: number;
  /** Whether stale halo rows were extrapolated. */
  extrapolateHalos: boolean;
  relativeL2: number[];
  psnr: number[];
  ssim: number[];
}

export async function run(args: string[]): Promise<number> {
  const flags = readFlags(args, flagTexts);
  if (flags.help) {
    process.stdout.write(renderHelp(help, flagTexts));
    return 0;
  }
  const rankCounts = wholesOf(flags, "ranks", { min: 2, max: rankCountMax });
  const modes = namesOf(flags, "modes", syncModes) ?? syncModes;
  const cases = casesOf(flags);
  const generation = await readGeneration(flags);
  const warmupSteps =
    wholeOf(flags, "warmup-steps", { min: 0, max: generation.stepCount }) ??
    Math.min(4, generation.stepCount);
  const asked = flags["predict-borders"];
  const extrapolateHalos = typeof asked === "boolean" ? asked : undefined;
  const patches = feasibleRankCounts(generation, rankCounts, ranksDefault, false);

  process.stdout.write(`${heading(generation, warmupSteps, cases)}\n\n`);
  const rows = await measure(generation, { patches, modes, cases, warmupSteps, extrapolateHalos });
  rows.sort((a, b) => modes.indexOf(a.mode) - modes.indexOf(b.mode) || a.patches - b.patches);
  process.stdout.write(`${table(rows)}\nMean over the images (minimum to maximum).\n`);
  const data = { ...settings(generation, warmupSteps, cases), rows: rows.map(jsonRow) };
  await writeReport(textOf(flags, "out") ?? "bench-out", "quality", data, chart(rows));
  return 0;
}

// --- internal ---

function casesOf(flags: Flags): Case[] {
  const path = textOf(flags, "prompts");
  const prompts = path === undefined ? promptsDefault : readPrompts(path);
  const seeds = seedsOf(flags, "seeds") ?? prompts.map((_, i) => seedFirst + BigInt(i));
  const count = Math.max(prompts.length, seeds.length);
  return Array.from({ length: count }, (_, i) => ({
    prompt: prompts[i % prompts.length]!,
    seed: seeds[i % seeds.length]!,
  }));
}

async function measure(
  generation: Generation,
  o: {
    patches: number[];
    modes: readonly SyncMode[];
    cases: Case[];
    warmupSteps: number;
    /** undefined = the default of `sample`. */
    extrapolateHalos: boolean | undefined;
  },
): Promise<Row[]> {
  const { modes, cases } = o;
  const how = { warmupSteps: o.warmupSteps, splitBatch: false };
  const references: ImageResult[] = [];
  await withRanks(generation, 1, async (session) => {
    for (const each of cases) {
      references.push(
        await generateImage(session, generation, each, { ...how, syncMode: "full_sync" }),
      );
    }
  });
  const rows: Row[] = [];
  for (const patches of o.patches) {
    await withRanks(generation, patches, async (session) => {
      for (const mode of modes) {
        process.stderr.write(`${patches} patches, ${mode}\n`);
        const ranks = { ...how, syncMode: mode };
        const extrapolateHalos =
          o.extrapolateHalos ?? extrapolatesFor(generation, { ...ranks, rankCount: patches });
        const row: Row = { mode, patches, extrapolateHalos, relativeL2: [], psnr: [], ssim: [] };
        for (const [i, each] of cases.entries()) {
          const ours = await generateImage(session, generation, each, {
            ...ranks,
            extrapolateHalos,
          });
          compare(row, ours, references[i]!);
        }
        rows.push(row);
      }
    });
  }
  return rows;
}

async function withRanks(
  generation: Generation,
  rankCount: number,
  work: (session: Awaited<ReturnType<typeof openRanks>>) => Promise<void>,
): Promise<void> {
  const session = await openRanks(generation, { rankCount, splitBatch: false, threadCount: 0 });
  try {
    await work(session);
  } finally {
    await session.close();
  }
}

function compare(row: Row, ours: ImageResult, reference: ImageResult): void {
  row.relativeL2.push(relativeL2(ours.latents!, reference.latents!));
  row.psnr.push(psnr(imageOf(ours), imageOf(reference)));
  row.ssim.push(ssim(imageOf(ours), imageOf(reference)));
}

function imageOf({ images, width, height }: ImageResult): Image {
  return { pixels: images[0]!, width, height };
}

function settings(generation: Generation, warmupSteps: number, cases: Case[]) {
  const { model, width, height, guidanceScale, stepCount, schedule } = generation;
  return {
    model: model.name,
    machine: machine(),
    width,
    height,
    guidanceScale,
    stepCount,
    warmupSteps,
    scheduler: schedule.name,
    cases: cases.map(({ prompt, seed }) => ({ prompt, seed: String(seed) })),
  };
}

function heading(generation: Generation, warmupSteps: number, cases: Case[]): string {
  const { model, width, height, guidanceScale, stepCount, schedule } = generation;
  return (
    `${model.name}, ${width}x${height}, ${stepCount} steps of ${schedule.name}, ` +
    `${warmupSteps} of warm-up, guidance ${guidanceScale}, ${cases.length} images, against one ` +
    "rank:"
  );
}

function table(rows: readonly Row[]): string {
  return renderTable(
    ["mode", "patches", "extrapolated", "relative L2 of latents", "PSNR, dB", "SSIM"],
    rows.map((row) => [
      row.mode,
      String(row.patches),
      row.extrapolateHalos ? "yes" : "no",
      spread(row.relativeL2, (value) => value.toExponential(1)),
      spread(row.psnr, (value) => (value === Number.POSITIVE_INFINITY ? "inf" : value.toFixed(1))),
      spread(row.ssim, (value) => value.toFixed(4)),
    ]),
  );
}

function spread(values: readonly number[], show: (value: number) => string): string {
  const { mean, min, max } = summary(values);
  return `${show(mean)} (${show(min)} to ${show(max)})`;
}

function summary(values: readonly number[]) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return { mean, min: Math.min(...values), max: Math.max(...values) };
}

/** JSON has no infinity: the PSNR of identical images is null there. */
function jsonRow({ mode, patches, extrapolateHalos, ...measures }: Row) {
  const finite = (value: number) => (Number.isFinite(value) ? value : null);
  const entries = Object.entries(measures).map(([name, values]) => {
    const { mean, min, max } = summary(values);
    const each = values.map(finite);
    return [name, { mean: finite(mean), min: finite(min), max: finite(max), each }];
  });
  return { mode, patches, extrapolateHalos, ...Object.fromEntries(entries) };
}

function chart(rows: readonly Row[]): TopLevelSpec {
  const panel = (name: "relativeL2" | "psnr" | "ssim", title: string, scale: object) => {
    const values = rows.map(({ mode, patches, [name]: each }) => ({
      mode,
      patches,
      ...summary(each),
    }));
    const x = {
      field: "patches",
      type: "ordinal",
      title: "patches",
      axis: { labelAngle: 0 },
    } as const;
    const xOffset = { field: "mode", type: "nominal", sort: syncModes } as const;
    const color = { field: "mode", type: "nominal", sort: syncModes, title: null } as const;
    const axis = { title: null, format: name === "relativeL2" ? "~e" : "~f", tickCount: 6 };
    const y = (field: string) => ({ field, type: "quantitative", axis, scale }) as const;
    return {
      title,
      width: 240,
      height: 260,
      data: { values: values.filter(({ max }) => Number.isFinite(max)) },
      layer: [
        {
          mark: "rule" as const,
          encoding: { x, xOffset, color, y: y("min"), y2: { field: "max" } },
        },
        {
          mark: { type: "point" as const, filled: true, opacity: 1 },
          encoding: { x, xOffset, color, y: y("mean") },
        },
      ],
    };
  };
  return {
    title: "Against one rank: mean, minimum and maximum",
    hconcat: [
      panel("relativeL2", "relative L2 of latents", { type: "log" }),
      panel("psnr", "PSNR, dB (without identical images)", { zero: false }),
      panel("ssim", "SSIM", { zero: false }),
    ],
  };
}
