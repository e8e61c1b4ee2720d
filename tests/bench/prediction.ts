/**
 * `bun run bench prediction`: what predicting old border rows gains. The same pictures with and
 * without it, against one rank, over seeds, samplers, warm-ups and bands; nothing else differs
 * between them.
 */
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import type { PictureResult } from "../../src/native/session.ts";
import { makeSchedule, type SchedulerName, schedulerNames } from "../../src/schedule.ts";
import { relativeL2 } from "../support/compare.ts";
import { type Case, type Drawing, draw, layoutFor, openRanks } from "./drawing.ts";
import { badOption } from "./flags.ts";
import { type Picture, psnr } from "./picture-measures.ts";
import { renderTable } from "./report.ts";

interface Subject {
  name: string;
  folder: string;
  stepCount: number;
  warmups: number[];
  bandCounts: number[];
  cases: Case[];
}

const root = join(import.meta.dir, "../..");

const subjects: Subject[] = [
  {
    name: "reference",
    folder: "tests/fixtures/golden/model",
    stepCount: 12,
    warmups: [1, 2, 4],
    bandCounts: [2, 4, 8],
    cases: [
      { prompt: "a photo of a red circle above a blue square", seed: 42n },
      { prompt: "cold color palette", seed: 7n },
    ],
  },
  {
    name: "bundled",
    folder: "src/assets/mini-sdxl",
    stepCount: 25,
    warmups: [2, 4],
    bandCounts: [2, 3, 4],
    cases: [
      { prompt: "a red house left of a green tree on the grass", seed: 42n },
      { prompt: "a large orange cat on a purple background", seed: 43n },
      { prompt: "a purple balloon at sunset", seed: 44n },
    ],
  },
];

/** Takes no arguments: the table is always the same one. */
export async function run(args: string[]): Promise<number> {
  if (args.length > 0) throw badOption(`bench prediction takes no flags, not ${args.join(" ")}.`);
  const rows: string[][] = [];
  for (const subject of subjects) {
    for (const scheduler of schedulerNames) {
      for (const bandCount of subject.bandCounts) {
        for (const warmupSteps of subject.warmups) {
          rows.push(await measure(subject, scheduler, bandCount, warmupSteps));
        }
      }
    }
  }
  const heads = ["model", "sampler", "bands", "warm-up", "plain", "predicted", "ratio", "PSNR, dB"];
  process.stdout.write(renderTable(heads, rows));
  return 0;
}

// --- internal ---

/** A row: means over the cases, the ratio with its lowest and highest, what PSNR gains. */
async function measure(
  subject: Subject,
  scheduler: SchedulerName,
  bandCount: number,
  warmupSteps: number,
): Promise<string[]> {
  const model = await openModelFolder(join(root, subject.folder));
  const { stepCount } = subject;
  const drawing: Drawing = {
    model,
    width: model.defaults.width ?? model.nativeSize.width,
    height: model.defaults.height ?? model.nativeSize.height,
    guidanceScale: model.defaults.guidanceScale ?? 5,
    schedule: makeSchedule(scheduler, model.scheduler, { stepCount }),
    stepCount,
  };
  layoutFor(drawing, { rankCount: bandCount, splitBatch: false });
  const one = await openRanks(drawing, { rankCount: 1, splitBatch: false, threadCount: 0 });
  const several = await openRanks(drawing, {
    rankCount: bandCount,
    splitBatch: false,
    threadCount: 0,
  });
  const found: { plain: number; predicted: number; gain: number }[] = [];
  try {
    for (const what of subject.cases) {
      const how = { syncMode: "corrected_async_gn", warmupSteps, splitBatch: false } as const;
      const reference = await draw(one, drawing, what, how);
      const plain = await draw(several, drawing, what, { ...how, predictBorders: false });
      const predicted = await draw(several, drawing, what, { ...how, predictBorders: true });
      const errorOf = (drawn: typeof plain) => relativeL2(drawn.latents!, reference.latents!);
      const gain =
        psnr(pictureOf(predicted), pictureOf(reference)) -
        psnr(pictureOf(plain), pictureOf(reference));
      found.push({ plain: errorOf(plain), predicted: errorOf(predicted), gain });
    }
  } finally {
    one.close();
    several.close();
  }
  const ratios = found.map(({ plain, predicted }) => predicted / plain);
  const range = `${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)}`;
  const geometric = Math.exp(mean(ratios.map(Math.log)));
  return [
    subject.name,
    scheduler,
    String(bandCount),
    String(warmupSteps),
    mean(found.map(({ plain }) => plain)).toExponential(1),
    mean(found.map(({ predicted }) => predicted)).toExponential(1),
    `${geometric.toFixed(2)} (${range})`,
    `${mean(found.map(({ gain }) => gain)).toFixed(1)}`,
  ];
}

function pictureOf({ pictures, width, height }: PictureResult): Picture {
  return { pixels: pictures[0]!, width, height };
}

function mean(values: number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
