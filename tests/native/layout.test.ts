/**
 * TypeScript describes the layout of ranks and refuses impossible ones; the library assigns the
 * rows. For random requests the library's plan has the rows that TypeScript computes.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { BasedXLError } from "../../src/errors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import { planOf } from "../../src/native/plan.ts";
import { layoutOf } from "../../src/pipeline/layout.ts";

const folder = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const model = nativeModelOf(folder);
const rowUnit = folder.sizeMultiple / folder.vaeFactor;

/** Rows of each rank, or null where the request is refused with "bad-option". */
function rowsInTypeScript(rankCount: number, guidance: boolean, split: boolean, rows: number) {
  try {
    const shared = { rankCount, guidance, splitBatch: split, latentRows: rows, rowUnit };
    const { branchGroups, patches } = layoutOf(shared);
    return Array.from({ length: branchGroups }, () => patches).flat();
  } catch (error) {
    if (error instanceof BasedXLError && error.code === "bad-option") return null;
    throw error;
  }
}

function rowsInLibrary(rankCount: number, guidance: boolean, split: boolean, rows: number) {
  try {
    const plan = planOf({
      model,
      rankCount,
      threadCount: 1,
      gpu: null,
      branchCount: guidance ? 2 : 1,
      latentRows: rows,
      latentWidth: rowUnit,
      splitBatch: split,
      imageCount: 1,
      vaeTileLatent: 0,
    });
    return plan.passes[0]!.ranks.map((rank) => rank.rows);
  } catch (error) {
    if (error instanceof BasedXLError) return null;
    throw error;
  }
}

test("TypeScript and the library deal the same rows to the same ranks", () => {
  const units = fc.integer({ min: 1, max: 12 });
  const ranks = fc.integer({ min: 1, max: 16 });
  fc.assert(
    fc.property(ranks, fc.boolean(), fc.boolean(), units, (rankCount, guidance, split, count) => {
      const asked = [rankCount, guidance, split, count * rowUnit] as const;
      expect(rowsInLibrary(...asked)).toEqual(rowsInTypeScript(...asked));
    }),
    { numRuns: 40 },
  );
}, 60_000);
