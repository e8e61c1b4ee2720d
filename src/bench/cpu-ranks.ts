/**
 * Several CPU ranks against one, in turns: they share the same cores, so the time of an image
 * should hardly depend on the rank count. A whole image of a few steps at SDXL's full size, with
 * guidance.
 */
import { openModelFolder } from "../models/folder.ts";
import type { Session } from "../pipeline/session.ts";
import { makeSchedule } from "../schedule.ts";
import { median } from "./cpu-ops.ts";
import { type Generation, generateImage, openRanks } from "./generation.ts";

export interface RankRow {
  rankCount: number;
  /** Median time of an image: text encoders, all steps and the decode. */
  milliseconds: number;
  oneRankMilliseconds: number;
  /** Median of the ranks' time over one rank's, pair by pair. */
  ratio: number;
}

const rankCounts = [2, 4, 8];
const stepCount = 2;

/** Times `pairCount` pairs for each number of ranks; yields row by row. */
export async function* timeRanks(
  folder: string,
  side: number,
  pairCount: number,
): AsyncGenerator<RankRow> {
  const model = await openModelFolder(folder);
  const generation: Generation = {
    model,
    width: side,
    height: side,
    guidanceScale: 5,
    schedule: makeSchedule("euler", model.scheduler, { stepCount }),
    stepCount,
  };
  const alone = await open(generation, 1);
  try {
    await time(alone, generation);
    for (const rankCount of rankCounts) {
      const several = await open(generation, rankCount);
      try {
        await time(several, generation);
        const ones: number[] = [];
        const shared: number[] = [];
        for (let i = 0; i < pairCount; i++) {
          ones.push(await time(alone, generation));
          shared.push(await time(several, generation));
        }
        yield {
          rankCount,
          milliseconds: median(shared),
          oneRankMilliseconds: median(ones),
          ratio: median(shared.map((value, i) => value / ones[i]!)),
        };
      } finally {
        several.close();
      }
    }
  } finally {
    alone.close();
  }
}

// --- internal ---

function open(generation: Generation, rankCount: number): Promise<Session> {
  return openRanks(generation, { rankCount, splitBatch: true, threadCount: 0 });
}

async function time(session: Session, generation: Generation): Promise<number> {
  const how = { syncMode: "corrected_async_gn", warmupSteps: 1, splitBatch: true } as const;
  const { timings } = await generateImage(
    session,
    generation,
    { prompt: "a red circle", seed: 1n },
    how,
  );
  return timings.textMs + timings.denoiseMs + timings.decodeMs;
}
