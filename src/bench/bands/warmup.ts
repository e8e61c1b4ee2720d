/**
 * Warm-up that ends by itself against the fixed default: PSNR of four patches against one rank, and
 * synchronous steps, over all images; and the same for other thresholds and fixed numbers.
 */
import { autoWarmupThreshold } from "../../pipeline/job.ts";
import type { ImageResult } from "../../pipeline/session.ts";
import { type Case, type Generation, generateImage, openRanks } from "../generation.ts";
import { psnr } from "../image-measures.ts";
import { renderTable } from "../report.ts";
import { patchCount, type Verdict } from "./exchange.ts";

const fixedDefault = 4;
const fixed = [3, fixedDefault, 5];
const factors = [0.94, 1, 1.08];

interface Row {
  name: string;
  /** Synchronous steps after the first. */
  steps: number[];
  psnr: number[];
}

export async function measureWarmup(generation: Generation, cases: Case[]): Promise<Verdict> {
  const one = await imagesOf(generation, cases, 1, { warmupSteps: 0 });
  const measured = async (
    name: string,
    how: { warmupSteps: number; warmupThreshold?: number },
  ): Promise<Row> => {
    const images = await imagesOf(generation, cases, patchCount, how);
    return {
      name,
      steps: images.map(({ found }) => found.warmupSteps ?? how.warmupSteps),
      psnr: images.map((image, i) => psnr(pixelsOf(image), pixelsOf(one[i]!))),
    };
  };
  const rows: Row[] = [];
  for (const warmupSteps of fixed) rows.push(await measured(`${warmupSteps}`, { warmupSteps }));
  for (const factor of factors) {
    const warmupThreshold = factor * autoWarmupThreshold;
    const how = { warmupSteps: generation.stepCount, warmupThreshold };
    const isDefault = factor === 1 ? ", auto" : "";
    rows.push(await measured(`below ${warmupThreshold.toFixed(3)}${isDefault}`, how));
  }
  const before = rows[fixed.indexOf(fixedDefault)]!;
  const auto = rows[fixed.length + factors.indexOf(1)]!;
  const isWithin = mean(auto.psnr) >= mean(before.psnr) && mean(auto.steps) <= mean(before.steps);
  return { text: textOf(generation, cases.length, rows), isWithin };
}

// --- internal ---

async function imagesOf(
  generation: Generation,
  cases: Case[],
  rankCount: number,
  how: { warmupSteps: number; warmupThreshold?: number },
): Promise<ImageResult[]> {
  const session = await openRanks(generation, { rankCount, splitBatch: false, threadCount: 0 });
  // Less than this is not extrapolated either way: what is compared differs in its steps alone.
  const shared = { syncMode: "corrected_async_gn", extrapolateHalos: rankCount > 1 } as const;
  try {
    const images: ImageResult[] = [];
    for (const each of cases) {
      images.push(
        await generateImage(session, generation, each, { ...shared, splitBatch: false, ...how }),
      );
    }
    return images;
  } finally {
    await session.close();
  }
}

function pixelsOf({ images, width, height }: ImageResult) {
  return { pixels: images[0]!, width, height };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function textOf({ model, width, height, stepCount }: Generation, count: number, rows: Row[]) {
  const table = renderTable(
    ["warm-up", "synchronous steps", "fewest", "most", "PSNR, dB", "worst"],
    rows.map(({ name, steps, psnr: values }) => [
      name,
      mean(steps).toFixed(2),
      String(Math.min(...steps)),
      String(Math.max(...steps)),
      mean(values).toFixed(2),
      Math.min(...values).toFixed(2),
    ]),
  );
  return `${model.name}, ${width}x${height}, ${stepCount} steps, ${patchCount} patches, \
corrected_async_gn, ${count} images against one rank. Bar: auto is no farther than ${fixedDefault} \
steps, and takes no more on average.

${table}`;
}
