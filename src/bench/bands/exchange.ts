/**
 * Bytes and error of four patches whose keys and values travel as changes in few bits, against
 * those that travel whole.
 */
import type { ImageResult } from "../../pipeline/session.ts";
import { compressions } from "../../settings/names.ts";
import { type Case, type Generation, generateImage, openRanks } from "../generation.ts";
import { renderTable } from "../report.ts";
import { relativeL2 } from "../support/compare.ts";

/** Of the bytes without compression, on the CPU in f32, and of the error against one rank. */
export const bars = { int8Bytes: 0.3, int8Error: 1.1 };
export const patchCount = 4;

export interface Verdict {
  text: string;
  isWithin: boolean;
}

interface Row {
  how: (typeof compressions)[number];
  /** Of all images, received by all ranks. */
  keysValuesBytes: number;
  allBytes: number;
  bufferBytes: number;
  /** Mean of the relative L2 of latents against one rank. */
  error: number;
}

export async function measureExchange(generation: Generation, cases: Case[]): Promise<Verdict> {
  const one = await latentsOf(generation, cases, 1, "none");
  const rows: Row[] = [];
  for (const how of compressions) {
    const results = await latentsOf(generation, cases, patchCount, how);
    const sum = (of: (rank: ImageResult["ranks"][number]) => number) =>
      results.flatMap(({ ranks }) => ranks).reduce((total, rank) => total + of(rank), 0);
    const errors = results.map(({ latents }, i) => relativeL2(latents!, one[i]!.latents!));
    rows.push({
      how,
      keysValuesBytes: sum((rank) => rank.keysValuesBytes),
      allBytes: sum((r) => r.keysValuesBytes + r.haloBytes + r.statisticsBytes + r.gatherBytes),
      bufferBytes: sum((rank) => rank.bufferBytes) / results.length,
      error: errors.reduce((total, error) => total + error, 0) / errors.length,
    });
  }
  const [plain, int8] = rows as [Row, Row];
  const isWithin =
    int8.keysValuesBytes <= bars.int8Bytes * plain.keysValuesBytes &&
    int8.error <= bars.int8Error * plain.error;
  return { text: textOf(generation, cases.length, rows), isWithin };
}

// --- internal ---

async function latentsOf(
  generation: Generation,
  cases: Case[],
  rankCount: number,
  compressExchange: Row["how"],
): Promise<ImageResult[]> {
  const session = await openRanks(generation, { rankCount, splitBatch: false, threadCount: 0 });
  const how = { syncMode: "corrected_async_gn", warmupSteps: 4, splitBatch: false } as const;
  try {
    const results: ImageResult[] = [];
    for (const each of cases) {
      results.push(await generateImage(session, generation, each, { ...how, compressExchange }));
    }
    return results;
  } finally {
    await session.close();
  }
}

/** The CPU exchanges f32. GPUs exchange 16 bits, of which the same changes are twice the share. */
function textOf(generation: Generation, count: number, rows: readonly Row[]): string {
  const { model, width, height, stepCount } = generation;
  const [plain] = rows as [Row];
  const table = renderTable(
    ["exchange", "bytes of f32", "of f16", "all bytes of f32", "buffers", "error", "ratio"],
    rows.map((row) => {
      const share = row.keysValuesBytes / plain.keysValuesBytes;
      return [
        row.how,
        share.toFixed(3),
        row === plain ? "" : halfShare(share, stepCount).toFixed(3),
        (row.allBytes / plain.allBytes).toFixed(3),
        `${(row.bufferBytes / 2 ** 20).toFixed(1)} MiB`,
        row.error.toExponential(3),
        (row.error / plain.error).toFixed(3),
      ];
    }),
  );
  return `${model.name}, ${width}x${height}, ${stepCount} steps, ${patchCount} patches, \
corrected_async_gn, ${count} images: keys and values that a rank receives, and the relative L2 of \
latents against one rank. Bars: int8 ${bars.int8Bytes} of the bytes, error ${bars.int8Error} times.

${table}`;
}

/** The first step sends whole numbers, which have half the bytes in f16; changes are the same. */
function halfShare(share: number, stepCount: number): number {
  const whole = 1 / stepCount;
  return whole + 2 * (share - whole);
}
