/**
 * Headers of adapter files for tests of matching: shapes alone, for the golden model.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type AdaptableModel, adaptableModelOf } from "../../src/adapters/weights.ts";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import type { SafetensorsHeader } from "../../src/models/safetensors-header.ts";

export const golden: AdaptableModel = adaptableModelOf(await openModelFolder(goldenModel));

const folder = mkdtempSync(join(tmpdir(), "basedxl-adapters-"));

/** The file behind all headers: every number in it is 6. */
export const adapterPath = join(folder, "some.safetensors");
writeFileSync(adapterPath, new Uint8Array(new Float32Array(2 ** 16).fill(6).buffer));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));

/** A header of F32 tensors of these shapes. */
export function headerOf(
  shapes: Readonly<Record<string, readonly number[]>>,
  metadata: Readonly<Record<string, string>> = {},
): SafetensorsHeader {
  let end = 0;
  const tensors = Object.entries(shapes).map(([name, shape]) => {
    const begin = end;
    end += 4 * shape.reduce((product, size) => product * size, 1);
    return [name, { dtype: "F32", shape, begin, end }] as const;
  });
  return {
    path: adapterPath,
    fileBytes: end,
    headerBytes: 8,
    tensors: new Map(tensors),
    metadata: new Map(Object.entries(metadata)),
  };
}

/** A LoRA of rank 2 for a weight of shape `weight`: its two factors by the names given. */
export function factorsFor(weight: readonly number[], up: string, down: string) {
  const [out = 0, ...rest] = weight;
  const isConvolution = weight.length === 4;
  return { [up]: isConvolution ? [out, 2, 1, 1] : [out, 2], [down]: [2, ...rest] };
}
