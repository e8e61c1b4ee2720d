/**
 * Several CPU ranks against one, in turns: the cores are the same, so a image should take hardly
 * longer however many ranks share them. A whole image of a few steps at SDXL's full size, with
 * guidance.
 */
import { openModelFolder } from "../models/folder.ts";
import type { Session } from "../pipeline/session.ts";
import { makeSchedule } from "../schedule.ts";
import { median } from "./cpu-ops.ts";
import { type Drawing, draw, openRanks } from "./drawing.ts";

export interface RankRow {
  rankCount: number;
  /** Of a image: texts, all steps and the decode; medians. */
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
  const drawing: Drawing = {
    model,
    width: side,
    height: side,
    guidanceScale: 5,
    schedule: makeSchedule("euler", model.scheduler, { stepCount }),
    stepCount,
  };
  const alone = await open(drawing, 1);
  try {
    await time(alone, drawing);
    for (const rankCount of rankCounts) {
      const several = await open(drawing, rankCount);
      try {
        await time(several, drawing);
        const ones: number[] = [];
        const shared: number[] = [];
        for (let i = 0; i < pairCount; i++) {
          ones.push(await time(alone, drawing));
          shared.push(await time(several, drawing));
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

function open(drawing: Drawing, rankCount: number): Promise<Session> {
  return openRanks(drawing, { rankCount, splitBatch: true, threadCount: 0 });
}

async function time(session: Session, drawing: Drawing): Promise<number> {
  const how = { syncMode: "corrected_async_gn", warmupSteps: 1, splitBatch: true } as const;
  const { timings } = await draw(session, drawing, { prompt: "a red circle", seed: 1n }, how);
  return timings.textMs + timings.denoiseMs + timings.decodeMs;
}
