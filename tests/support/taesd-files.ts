/**
 * The TAESD of tests/reference/make_taesd.py as a file: its weights are formulas.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { formulaTensor } from "../../src/bench/support/formula-weights.ts";
import { formulaInput } from "../../src/bench/support/references.ts";
import { headOf } from "../../src/bench/support/safetensors.ts";
import recorded from "../fixtures/taesd.json";

export const { rows, width } = recorded;

/** What the recorded image was made of. */
export const latent = formulaInput("taesd.latent", [1, 4, rows, width], recorded.scale).data;

const folders: string[] = [];

export function removeTaesds(): void {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
}

/** Writes the file with diffusers' keys, or as `keyOf` renames them; gives its path. */
export function writeTaesd(name: string, keyOf = (key: string) => key): string {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-taesd-"));
  folders.push(folder);
  const path = join(folder, name);
  const blobs: Float32Array[] = [];
  let end = 0;
  const header = Object.fromEntries(
    Object.entries(recorded.shapes).map(([key, shape]) => {
      const values = formulaTensor("taesd", key, shape);
      blobs.push(values);
      const begin = end;
      end += values.byteLength;
      return [keyOf(key), { dtype: "F32", shape, data_offsets: [begin, end] }];
    }),
  );
  writeFileSync(
    path,
    Buffer.concat([headOf(header), ...blobs.map(({ buffer }) => new Uint8Array(buffer))]),
  );
  return path;
}
