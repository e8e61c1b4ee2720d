/**
 * The layout of an image over ranks: ranks = guidance branches × patches of rows. With guidance
 * and an even rank count the branches are split first, since that is exact; then rows.
 * `zig/patch/layout.zig` has the same rules: change both or neither. Also the default of halo
 * extrapolation, which depends on the layout.
 */
import { type BasedXLError, badOption } from "../errors.ts";
import type { StepCoefficients } from "../schedule.ts";
import type { SyncMode } from "../settings/names.ts";
import { asProperty, checkSetting, type Naming } from "../settings/values.ts";
import { type Balance, unitsBy } from "./balance.ts";

/** The first changes after the noise are no guide to the next; `auto` is no less. */
export const warmupStepsMin = 2;

export interface Layout {
  rankCount: number;
  /** 2 where guidance branches have separate ranks: rank = group · patches.length + patch. */
  branchGroups: 1 | 2;
  /** Rows of the latent per patch, from the top; patches differ by at most one `rowUnit`. */
  patches: number[];
  /** Those of steps outside the guidance window, where they are others. */
  unguidedPatches: number[] | null;
  /** Description, such as "4 ranks = 2 guidance branches × 2 patches (64 + 64 rows)". */
  text: string;
}

export interface LayoutRequest {
  rankCount: number;
  /** Whether there are two guidance branches. */
  guidance: boolean;
  /** Prompts that an image combines, with a branch each. Default: 1. */
  promptCount?: number;
  /** Whether some steps are outside the guidance window. Default: none. */
  hasWindow?: boolean;
  /** False keeps both branches on every rank. */
  splitBatch: boolean;
  /** Shares of the rows, one per rank, which then all have every branch. Default: equal parts. */
  balance?: Pick<Balance, "shares" | "step"> | null | undefined;
  latentRows: number;
  /** Patches are multiples of this many rows: 2^(levels - 1), 4 for SDXL, as UNet levels halve. */
  rowUnit: number;
  /** Pixels per row of the latent: errors then name heights in pixels. */
  vaeFactor?: number;
  /** How errors name settings; default: as the API does. */
  naming?: Naming | undefined;
}

/**
 * Splits the rows into patches. Throws "bad-option" where a patch would have no rows, naming the
 * largest rank count and the smallest height that work, and where the height is no multiple of
 * `rowUnit`.
 */
export function layoutOf(request: LayoutRequest): Layout {
  const { guidance, latentRows, rowUnit, naming = asProperty } = request;
  const rankCount = checkSetting("rankCount", request.rankCount, naming);
  if (latentRows < rowUnit || latentRows % rowUnit !== 0) {
    const near = Math.max(rowUnit, Math.round(latentRows / rowUnit) * rowUnit);
    throw badOption(
      `${naming("height")} must be a multiple of ${heightOf(rowUnit, request)}, not \
${heightOf(latentRows, request)}: the nearest is ${heightOf(near, request)}.`,
    );
  }
  const branchGroups = branchGroupsOf(request, rankCount);
  const patchCount = rankCount / branchGroups;
  const unitCount = latentRows / rowUnit;
  if (patchCount > unitCount) throw tooManyPatches(request, patchCount);

  const { shares = [], step = 0 } = request.balance ?? {};
  const byShares = unitsBy(shares, unitCount).map((units) => units * rowUnit);
  const hasShares = shares.length > 0 && patchCount === shares.length;
  const patches = hasShares && step === 0 ? byShares : dealt(unitCount, patchCount, rowUnit);
  const isDealtAnew = request.hasWindow === true && branchGroups > 1;
  const unguidedPatches = isDealtAnew
    ? dealt(unitCount, Math.min(rankCount, unitCount), rowUnit)
    : null;
  const branchCount = guidance ? 1 + (request.promptCount ?? 1) : 1;
  const whole = describe(branchGroups, patches, branchCount);
  const later = hasShares && step > 0 ? `; ${listed(byShares)} from step ${step + 1} on` : "";
  const text =
    unguidedPatches === null
      ? `${whole}${later}`
      : `${whole}; ${listed(unguidedPatches)} outside the guidance window`;
  return { rankCount, branchGroups, patches, unguidedPatches, text };
}

/**
 * Whether stale halo rows are extrapolated by default: where it brought all but two of the 40
 * measured images (src/bench/README.md) closer to full synchronisation. `patches` are latent rows,
 * dealt in units of `rowUnit`. Samplers that add noise are left out: their last change says little
 * about the next one.
 */
export function extrapolatesByDefault(o: {
  syncMode: SyncMode;
  steps: readonly StepCoefficients[];
  patches: readonly number[];
  rowUnit: number;
  warmupSteps: number;
}): boolean {
  if (o.patches.length === 1 || neverOld.includes(o.syncMode)) return false;
  if (o.steps.some((step) => step.samplesNoise)) return false;
  if (o.warmupSteps < warmupStepsMin) return false;
  return o.patches.every((rowCount) => rowCount >= unitCountMin * o.rowUnit);
}

// --- internal ---

/** In thinner patches neighbouring rows change too differently for one to predict the other. */
const unitCountMin = 2;

/** Modes that read no halo rows of the last step: there is nothing to extrapolate. */
const neverOld: readonly SyncMode[] = ["full_sync", "no_sync"];

/** Rows of each patch; the first ones are larger by a unit where they do not come out even. */
function dealt(unitCount: number, patchCount: number, rowUnit: number): number[] {
  const even = Array<number>(patchCount).fill(1);
  return unitsBy(even, unitCount).map((units) => units * rowUnit);
}

function listed(patches: readonly number[]): string {
  const count = patches.length === 1 ? "1 patch" : `${patches.length} patches`;
  return `${count} (${patches.join(" + ")} rows)`;
}

function branchGroupsOf(request: LayoutRequest, rankCount: number): 1 | 2 {
  const { guidance, splitBatch, promptCount = 1, balance } = request;
  if (balance) return 1;
  return guidance && splitBatch && promptCount === 1 && rankCount % 2 === 0 ? 2 : 1;
}

/** `1 latent row`, or the pixels of so many rows where those are known. */
function heightOf(rows: number, { vaeFactor }: LayoutRequest): string {
  if (vaeFactor !== undefined) return `${rows * vaeFactor}`;
  return rows === 1 ? "1 latent row" : `${rows} latent rows`;
}

function tooManyPatches(request: LayoutRequest, patchCount: number): BasedXLError {
  const { rankCount, latentRows, rowUnit, naming = asProperty } = request;
  const unitCount = latentRows / rowUnit;
  let fewer = rankCount - 1;
  while (fewer / branchGroupsOf(request, fewer) > unitCount) fewer--;
  return badOption(
    `${rankCount} ranks are ${patchCount} patches, and a height of \
${heightOf(latentRows, request)} \
has rows for ${unitCount}: use ${ranks(fewer)} (${naming("rankCount")} ${fewer}), or a height of \
at least ${heightOf(patchCount * rowUnit, request)}.`,
  );
}

function ranks(count: number): string {
  return count === 1 ? "1 rank" : `${count} ranks`;
}

function describe(branchGroups: 1 | 2, patches: readonly number[], branchCount: number): string {
  const shared = patches.length === 1 ? "" : listed(patches);
  const total = ranks(branchGroups * patches.length);
  if (branchGroups === 2) {
    return `${total} = 2 guidance branches${shared === "" ? "" : ` × ${shared}`}`;
  }
  if (branchCount === 1) {
    return shared === "" ? `${total}, no guidance` : `${total} = ${shared}, no guidance`;
  }
  const branches = `${branchCount === 2 ? "both" : branchCount} guidance branches`;
  return shared === "" ? `${total} = ${branches}` : `${total} = ${shared}, ${branches} on each`;
}
