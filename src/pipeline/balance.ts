/**
 * Rows by the speed of ranks (`--balance`): a share for each rank, from a step on, or measured in
 * the first steps. What was measured is written as shares, so that the image can be made again.
 */
import { badOption, escaped } from "../errors.ts";
import { shareMax } from "../native/abi.ts";
import { asProperty, type Naming } from "../settings/values.ts";

export interface Balance {
  /** One per rank; empty where speeds are measured. */
  shares: readonly number[];
  /** The step from which on they hold, from 0. */
  step: number;
  measures: boolean;
}

/**
 * Reads the setting; null for equal parts. Steps are the sampler's evaluations of the model. Throws
 * "bad-option".
 */
export function balanceOf(
  settings: { balance: string; crossAttentionGate?: number | undefined },
  counts: { rankCount: number; stepCount: number },
  naming: Naming = asProperty,
): Balance | null {
  const balance = parsed(settings.balance, counts, naming);
  const isAnew = balance !== null && (balance.measures || balance.step > 0);
  if (!settings.crossAttentionGate || !isAnew) return balance;
  // Outputs of cross-attention that are kept belong to the rows of their rank, which keeps them.
  throw badOption(
    `${naming("balance")} ${settings.balance} does not go with ${naming("crossAttentionGate")}: \
give shares that hold from the first step on, such as 2:1:1:1.`,
  );
}

/** A text that `balanceOf` reads. */
export function balanceText({ shares, step }: Pick<Balance, "shares" | "step">): string {
  return `${shares.join(":")}${step === 0 ? "" : `@${step}`}`;
}

/**
 * Units of rows of each rank so that the last one is done as early as can be, each at least one:
 * `unitsBy` of zig/patch/layout.zig.
 */
export function unitsBy(shares: readonly number[], unitCount: number): number[] {
  const units = shares.map(() => 1);
  for (let left = unitCount - shares.length; left > 0; left--) {
    let best = 0;
    for (const [i, share] of shares.entries()) {
      if ((units[i]! + 1) * shares[best]! < (units[best]! + 1) * share) best = i;
    }
    units[best]! += 1;
  }
  return units;
}

// --- internal ---

function parsed(
  text: string,
  { rankCount, stepCount }: { rankCount: number; stepCount: number },
  naming: Naming,
): Balance | null {
  if (text === "off") return null;
  if (text === "auto") return { shares: [], step: 0, measures: true };
  const name = naming("balance");
  const match = /^(\d{1,9}(?::\d{1,9})*)(?:@(\d{1,9}))?$/.exec(text);
  if (match === null) {
    throw badOption(
      `${name} must be off, auto or a share for each rank, such as 2:1:1:1, not \
"${escaped(text, 60)}".`,
    );
  }
  const shares = match[1]!.split(":").map(Number);
  const step = Number(match[2] ?? 0);
  if (shares.length !== rankCount) {
    throw badOption(
      `${name} ${text} has ${counted(shares.length, "share")}, and there ${
        rankCount === 1 ? "is" : "are"
      } ${counted(rankCount, "rank")}: give each rank one.`,
    );
  }
  const wrong = shares.findIndex((share) => share < 1 || share > shareMax);
  if (wrong >= 0) {
    const why = shares[wrong] === 0 ? " With 0 a rank has no rows: leave it out instead." : "";
    const range = `a whole number from 1 to ${shareMax}`;
    throw badOption(`${name} ${text}: a share is ${range}, not ${shares[wrong]}.${why}`);
  }
  if (step >= Math.max(1, stepCount)) {
    throw badOption(`${name} ${text}: there is no step ${step} of ${stepCount}, counted from 0.`);
  }
  return { shares, step, measures: false };
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}
