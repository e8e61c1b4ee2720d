/**
 * Who computes what: ranks = guidance branches × bands of rows. With guidance and an even rank
 * count the branches split first, since that is exact; then rows. `zig/patch/layout.zig` deals by
 * the same rules: change both or neither.
 */
import { BasedXLError } from "../errors.ts";
import { limits } from "../settings/limits.ts";

export interface Layout {
  rankCount: number;
  /** 2 where each guidance branch has ranks of its own: rank = group · bands.length + band. */
  branchGroups: 1 | 2;
  /** Rows of the latent per band, from the top; they differ by one unit at most. */
  bands: number[];
  /** In words, such as "4 ranks = 2 guidance branches × 2 bands (64 + 64 rows)". */
  text: string;
}

export interface LayoutRequest {
  rankCount: number;
  /** Whether there are two branches to compute. */
  guidance: boolean;
  /** False keeps both branches on every rank. */
  splitBatch: boolean;
  latentRows: number;
  /** Rows that every level of the UNet can halve: 2^(levels - 1), 4 for SDXL. */
  rowUnit: number;
  /** Pixels per row of the latent: refusals then name heights as users give them. */
  vaeFactor?: number;
}

/**
 * Deals the rows. Throws "bad-option" where some band would get none, naming the largest smaller
 * rank count that works and the smallest height that does; and for a height of no whole units.
 */
export function layoutOf(request: LayoutRequest): Layout {
  const { rankCount, guidance, latentRows, rowUnit } = request;
  const { min, max } = limits.gpus;
  if (!Number.isInteger(rankCount) || rankCount < min || rankCount > max) {
    throw badOption(`A picture is shared by ${min} to ${max} ranks, not by ${rankCount}.`);
  }
  if (latentRows < rowUnit || latentRows % rowUnit !== 0) {
    const near = Math.max(rowUnit, Math.round(latentRows / rowUnit) * rowUnit);
    throw badOption(
      `The height must be a multiple of ${heightOf(rowUnit, request)}, not \
${heightOf(latentRows, request)}: the nearest is ${heightOf(near, request)}.`,
    );
  }
  const branchGroups = branchGroupsOf(request, rankCount);
  const bandCount = rankCount / branchGroups;
  const unitCount = latentRows / rowUnit;
  if (bandCount > unitCount) throw tooManyBands(request, bandCount);

  const share = Math.floor(unitCount / bandCount);
  const largerCount = unitCount % bandCount;
  const bands = Array.from(
    { length: bandCount },
    (_, band) => (share + (band < largerCount ? 1 : 0)) * rowUnit,
  );
  return { rankCount, branchGroups, bands, text: describe(branchGroups, bands, guidance) };
}

// --- internal ---

function badOption(message: string): BasedXLError {
  return new BasedXLError("bad-option", message);
}

function branchGroupsOf({ guidance, splitBatch }: LayoutRequest, rankCount: number): 1 | 2 {
  return guidance && splitBatch && rankCount % 2 === 0 ? 2 : 1;
}

/** `1 latent row`, or the pixels of so many rows where those are known. */
function heightOf(rows: number, { vaeFactor }: LayoutRequest): string {
  if (vaeFactor !== undefined) return `${rows * vaeFactor}`;
  return rows === 1 ? "1 latent row" : `${rows} latent rows`;
}

function tooManyBands(request: LayoutRequest, bandCount: number): BasedXLError {
  const { rankCount, latentRows, rowUnit } = request;
  const unitCount = latentRows / rowUnit;
  let fewer = rankCount - 1;
  while (fewer / branchGroupsOf(request, fewer) > unitCount) fewer--;
  return badOption(
    `${rankCount} ranks are ${bandCount} bands, and a height of ${heightOf(latentRows, request)} \
has rows for ${unitCount}: use ${ranks(fewer)} (--gpus ${fewer}), or a height of at least \
${heightOf(bandCount * rowUnit, request)}.`,
  );
}

function ranks(count: number): string {
  return count === 1 ? "1 rank" : `${count} ranks`;
}

function describe(branchGroups: 1 | 2, bands: readonly number[], guidance: boolean): string {
  const shared = bands.length === 1 ? "" : `${bands.length} bands (${bands.join(" + ")} rows)`;
  const total = ranks(branchGroups * bands.length);
  if (branchGroups === 2) {
    return `${total} = 2 guidance branches${shared === "" ? "" : ` × ${shared}`}`;
  }
  const left = guidance ? "both guidance branches" : "no guidance";
  if (shared !== "") return `${total} = ${shared}, ${left}${guidance ? " on each" : ""}`;
  return guidance ? `${total} = ${left}` : `${total}, ${left}`;
}
