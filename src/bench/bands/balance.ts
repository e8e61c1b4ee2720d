/**
 * Four ranks of which one takes twice its time: the step with rows dealt by measured speed against
 * the ideal, in which all ranks would be done at once. A step lasts as long as the rank that
 * computes longest; each rank's own time is known, so ranks that share cores do not matter.
 */
import type { ImageResult, Session } from "../../pipeline/session.ts";
import { type Case, type Generation, generateImage, openRanks } from "../generation.ts";
import { renderTable } from "../report.ts";
import { patchCount, type Verdict } from "./exchange.ts";

/** Step against the ideal. */
const stepBar = 1.1;
const slowRank = 3;
/** A rank that takes so many hundredths more has half the speed. */
const slowPercent = 100;
const repeatCount = 3;
/** 48 units of rows for four ranks: with 32 the ideal, 9.14 of a unit each, is missed by more. */
const heightFactor = 6;

type Balance = Parameters<typeof generateImage>[3]["balance"];

export async function measureBalance(generation: Generation, cases: Case[]): Promise<Verdict> {
  const tall = { ...generation, height: heightFactor * generation.height };
  const session = await openRanks(tall, {
    ...{ rankCount: patchCount, splitBatch: false, threadCount: 0 },
  });
  try {
    const one = cases[0]!;
    const even = await timesOf(session, tall, one, { isSlow: false, balance: null });
    const total = even.reduce((sum, each) => sum + each, 0);
    const ideal = total / (patchCount - 1 + 1 / (1 + slowPercent / 100));
    const slow = await timesOf(session, tall, one, { isSlow: true, balance: null });
    const measures = { shares: [], step: 0, measures: true };
    const { found } = await imageOf(session, tall, one, { isSlow: true, balance: measures });
    const shares = found.balance?.shares ?? even.map(() => 1);
    const balance = { shares, step: 0, measures: false };
    const dealt = await timesOf(session, tall, one, { isSlow: true, balance });
    const ratio = Math.max(...dealt) / ideal;
    return { text: textOf(tall, { ideal, even, slow, dealt, shares }), isWithin: ratio <= stepBar };
  } finally {
    await session.close();
  }
}

// --- internal ---

async function imageOf(
  session: Session,
  generation: Generation,
  one: Case,
  { isSlow, balance }: { isSlow: boolean; balance: Balance },
): Promise<ImageResult> {
  const how = { syncMode: "corrected_async_gn", warmupSteps: 4, splitBatch: false } as const;
  const slow = isSlow ? { rank: slowRank, percent: slowPercent } : undefined;
  const hooks = slow && { testHooks: { slow } };
  const steps = { stepCount: Math.min(8, generation.stepCount) };
  return await generateImage(session, generation, one, { ...how, ...hooks, ...steps, balance });
}

/** The least own time of each rank in a step, in milliseconds. */
async function timesOf(
  session: Session,
  generation: Generation,
  one: Case,
  how: { isSlow: boolean; balance: Balance },
): Promise<number[]> {
  const least = Array<number>(patchCount).fill(Number.POSITIVE_INFINITY);
  for (let repeat = 0; repeat < repeatCount; repeat++) {
    const { ranks, timings } = await imageOf(session, generation, one, how);
    for (const [i, { computeMs }] of ranks.entries()) {
      least[i] = Math.min(least[i]!, computeMs / timings.stepMs.length);
    }
  }
  return least;
}

function textOf(
  { model, width, height }: Generation,
  m: { ideal: number; even: number[]; slow: number[]; dealt: number[]; shares: readonly number[] },
): string {
  const rows = (
    [
      ["equal speeds, equal parts", m.even, ""],
      ["one at half speed, equal parts", m.slow, ""],
      ["one at half speed, dealt by speed", m.dealt, m.shares.join(":")],
    ] as const
  ).map(([what, times, shares]) => {
    const step = Math.max(...times);
    const each = times.map((time) => time.toFixed(1)).join(", ");
    return [what, shares, each, step.toFixed(1), (step / m.ideal).toFixed(3)];
  });
  const heads = ["ranks", "units of rows", "own time of each, ms", "step, ms", "of the ideal"];
  return `${model.name}, ${width}x${height}, ${patchCount} ranks that share rows alone: the ideal \
step with one rank at half speed is ${m.ideal.toFixed(1)} ms. Bar: ${stepBar} times.

${renderTable(heads, rows)}`;
}
