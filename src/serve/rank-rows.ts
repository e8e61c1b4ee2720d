/**
 * Which ranks compute which rows of an image, as the page draws it over the image.
 */
import type { Layout } from "../pipeline/layout.ts";

interface RankRows {
  /** One for each guidance branch that has ranks of its own. */
  ranks: number[];
  /** In pixels, from the top. */
  first: number;
  count: number;
}

interface ImageRows {
  rows: RankRows[];
  /** Of steps outside the guidance window, where they are others. */
  unguidedRows: RankRows[] | null;
}

/** From the top; `height` is that of the image. */
export function rankRows(
  { branchGroups, patches, unguidedPatches }: Layout,
  height: number,
): ImageRows {
  return {
    rows: rowsOf(patches, branchGroups, height),
    unguidedRows: unguidedPatches && rowsOf(unguidedPatches, 1, height),
  };
}

// --- internal ---

function rowsOf(patches: readonly number[], branchGroups: number, height: number): RankRows[] {
  const rowCount = patches.reduce((sum, rows) => sum + rows, 0);
  let first = 0;
  return patches.map((rows, patch) => {
    const ranks = Array.from({ length: branchGroups }, (_, group) => {
      return group * patches.length + patch;
    });
    const count = (rows * height) / rowCount;
    first += count;
    return { ranks, first: first - count, count };
  });
}
