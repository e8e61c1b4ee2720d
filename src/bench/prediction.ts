/**
 * `bun run bench prediction`: the gain of halo extrapolation. The same images with and without it,
 * against one rank, over seeds, samplers, warm-ups and patches; nothing else differs between them.
 */
import { join } from "node:path";
import { badOption } from "../errors.ts";
import { openModelFolder } from "../models/folder.ts";
import type { ImageResult } from "../pipeline/session.ts";
import { makeSchedule } from "../schedule.ts";
import { type Scheduler, schedulers } from "../settings/names.ts";
import {
  type Case,
  extrapolatesFor,
  type Generation,
  generateImage,
  openRanks,
} from "./generation.ts";
import { type Image, psnr } from "./image-measures.ts";
import { renderTable } from "./report.ts";
import { relativeL2 } from "./support/compare.ts";

interface Subject {
  name: string;
  folder: string;
  stepCount: number;
  warmups: number[];
  patchCounts: number[];
  cases: Case[];
}

const root = join(import.meta.dir, "../..");

const scenes: Case[] = [
  { prompt: "a red house left of a green tree on the grass", seed: 42n },
  { prompt: "a large orange cat on a purple background", seed: 43n },
  { prompt: "a purple diamond in the desert at sunset", seed: 44n },
];

const subjects: Subject[] = [
  {
    name: "reference",
    folder: "tests/fixtures/golden/model",
    stepCount: 12,
    warmups: [1, 2, 4],
    patchCounts: [2, 4, 8],
    cases: [
      { prompt: "a photo of a red circle above a blue square", seed: 42n },
      { prompt: "cold color palette", seed: 7n },
    ],
  },
  {
    name: "bundled",
    folder: "src/assets/mini-sdxl",
    stepCount: 25,
    warmups: [1, 2, 4],
    patchCounts: [2, 4, 8],
    cases: scenes,
  },
];

interface Pair {
  /** Relative L2 of the latents against one rank; DistriFusion's rule has no variance floor. */
  theirs: number;
  plain: number;
  extrapolated: number;
  /** PSNR of the image, dB. */
  gain: number;
}

interface Row {
  subject: string;
  sampler: Scheduler;
  patches: number;
  warmup: number;
  /** Whether `sample` extrapolates by default here. */
  isDefault: boolean;
  pairs: Pair[];
}

/** Takes no arguments: the cases are fixed. */
export async function run(args: string[]): Promise<number> {
  if (args.length > 0) throw badOption(`bench prediction takes no flags, not ${args.join(" ")}.`);
  const rows: Row[] = [];
  for (const subject of subjects) {
    for (const scheduler of schedulers) {
      for (const patchCount of subject.patchCounts) {
        for (const warmupSteps of subject.warmups) {
          const row = await measure(subject, scheduler, patchCount, warmupSteps);
          process.stderr.write(`${cellsOf(row).join("  ")}\n`);
          rows.push(row);
        }
      }
    }
  }
  const heads = [
    ...["model", "sampler", "patches", "warm-up", "default"],
    ...["DistriFusion", "plain", "extrapolated", "ratio", "PSNR, dB"],
  ];
  process.stdout.write(`${renderTable(heads, rows.map(cellsOf))}\n`);
  process.stdout.write(summary("Where it is the default", rows, true));
  process.stdout.write(summary("Elsewhere", rows, false));
  process.stdout.write(againstTheirs(rows));
  return 0;
}

// --- internal ---

async function measure(
  subject: Subject,
  scheduler: Scheduler,
  patchCount: number,
  warmupSteps: number,
): Promise<Row> {
  const model = await openModelFolder(join(root, subject.folder));
  const { stepCount } = subject;
  const generation: Generation = {
    model,
    width: model.defaults.width ?? model.nativeSize.width,
    height: model.defaults.height ?? model.nativeSize.height,
    guidanceScale: model.defaults.guidanceScale ?? 5,
    schedule: makeSchedule(scheduler, model.scheduler, { stepCount }),
    stepCount,
  };
  const share = { splitBatch: false, threadCount: 0 };
  const one = await openRanks(generation, { ...share, rankCount: 1 });
  const several = await openRanks(generation, { ...share, rankCount: patchCount });
  const how = { syncMode: "corrected_async_gn", warmupSteps, splitBatch: false } as const;
  const pairs: Pair[] = [];
  try {
    for (const what of subject.cases) {
      const reference = await generateImage(one, generation, what, how);
      const asTheirs = { extrapolateHalos: false, testHooks: { besselVariance: true } };
      const theirs = await generateImage(several, generation, what, { ...how, ...asTheirs });
      const plain = await generateImage(several, generation, what, {
        ...how,
        extrapolateHalos: false,
      });
      const extrapolated = await generateImage(several, generation, what, {
        ...how,
        extrapolateHalos: true,
      });
      const errorOf = (result: ImageResult) => relativeL2(result.latents!, reference.latents!);
      const nearness = (result: ImageResult) => psnr(imageOf(result), imageOf(reference));
      const gain = nearness(extrapolated) - nearness(plain);
      pairs.push({
        theirs: errorOf(theirs),
        plain: errorOf(plain),
        extrapolated: errorOf(extrapolated),
        gain,
      });
    }
  } finally {
    one.close();
    several.close();
  }
  return {
    subject: subject.name,
    sampler: scheduler,
    patches: patchCount,
    warmup: warmupSteps,
    isDefault: extrapolatesFor(generation, { rankCount: patchCount, ...how }),
    pairs,
  };
}

/** Means over the cases; for ratio and PSNR also the minimum and maximum. */
function cellsOf({ subject, sampler, patches, warmup, isDefault, pairs }: Row): string[] {
  const ratios = pairs.map(ratioOf);
  const gains = pairs.map(({ gain }) => gain);
  const spread = (values: number[], digits: number) =>
    `(${Math.min(...values).toFixed(digits)} to ${Math.max(...values).toFixed(digits)})`;
  return [
    subject,
    sampler,
    String(patches),
    String(warmup),
    isDefault ? "yes" : "no",
    mean(pairs.map(({ theirs }) => theirs)).toExponential(1),
    mean(pairs.map(({ plain }) => plain)).toExponential(1),
    mean(pairs.map(({ extrapolated }) => extrapolated)).toExponential(1),
    `${geometricMean(ratios).toFixed(2)} ${spread(ratios, 2)}`,
    `${mean(gains).toFixed(1)} ${spread(gains, 1)}`,
  ];
}

/** One line over all images of the rows where extrapolation is, or is not, the default. */
function summary(where: string, rows: readonly Row[], isDefault: boolean): string {
  const pairs = rows.filter((row) => row.isDefault === isDefault).flatMap((row) => row.pairs);
  const ratios = pairs.map(ratioOf);
  const worse = ratios.filter((ratio) => ratio > 1).length;
  const dimmer = pairs.filter(({ gain }) => gain < 0).length;
  return (
    `${where}: ratio ${geometricMean(ratios).toFixed(2)}, at most ` +
    `${Math.max(...ratios).toFixed(2)}; of ${pairs.length} images ${worse} have a larger error ` +
    `and ${dimmer} a lower PSNR.\n`
  );
}

/** One line: the effect of the variance floor, without extrapolation. */
function againstTheirs(rows: readonly Row[]): string {
  const pairs = rows.flatMap((row) => row.pairs);
  const ratios = pairs.map(({ theirs, plain }) => plain / theirs);
  const worst = (errors: number[]) => Math.max(...errors).toExponential(1);
  return (
    `Plain against DistriFusion: ratio ${geometricMean(ratios).toFixed(2)} ` +
    `(${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)}); the worst image ` +
    `${worst(pairs.map(({ theirs }) => theirs))} there, ` +
    `${worst(pairs.map(({ plain }) => plain))} here.\n`
  );
}

function ratioOf({ plain, extrapolated }: Pair): number {
  return extrapolated / plain;
}

function geometricMean(values: number[]): number {
  return Math.exp(mean(values.map(Math.log)));
}

function imageOf({ images, width, height }: ImageResult): Image {
  return { pixels: images[0]!, width, height };
}

function mean(values: number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
