/**
 * The adapter files of tests/fixtures/adapters, written from their formula into a temporary folder.
 * tests/reference/make_adapters.py has the same formula: change both or neither.
 */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type StoredType,
  seedOf,
  storedBytes,
  uniform,
} from "../../src/bench/support/formula-weights.ts";
import { headOf } from "../../src/bench/support/safetensors.ts";

const fixtures = join(import.meta.dir, "../fixtures/adapters");

/** Amplitude and offset of the uniform numbers, then the shape. */
type Entry = [amplitude: number, offset: number, ...shape: number[]];

interface FileEntry {
  dtype: StoredType;
  metadata: Record<string, string>;
  tensors: Record<string, Entry>;
}

/** The recorded latents of some files at some scales. */
export interface AppliedAdapters {
  /** Of the latents among the recorded tensors. */
  name: string;
  files: { name: string; scale: number }[];
}

export const recordedPath = join(fixtures, "images.safetensors");

/** The settings of all recorded images, and what was applied for each. */
export function readApplied() {
  const { run, applied } = JSON.parse(readFileSync(join(fixtures, "images.json"), "utf8")) as {
    run: { prompt: string; negative: string; seed: number; steps: number; guidance: number };
    applied: [file: string, scale: number][][];
  };
  const images: AppliedAdapters[] = applied.map((files) => ({
    name: files.map(([file, scale]) => `${file}:${scale}`).join("+"),
    files: files.map(([name, scale]) => ({ name, scale })),
  }));
  return { run, images };
}

/** Writes every file once, and removes the folder when the process ends; gives paths by name. */
export function writeReferenceAdapters(): ReadonlyMap<string, string> {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-reference-adapters-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  const files = JSON.parse(readFileSync(join(fixtures, "files.json"), "utf8"));
  return new Map(
    Object.entries<FileEntry>(files).map(([name, entry]) => {
      const path = join(folder, `${name}.safetensors`);
      writeFileSync(path, fileBytes(name, entry));
      return [name, path];
    }),
  );
}

// --- internal ---

function fileBytes(file: string, { dtype, metadata, tensors }: FileEntry): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: metadata };
  const blobs: Uint8Array[] = [];
  let end = 0;
  for (const [key, [amplitude, offset, ...shape]] of Object.entries(tensors)) {
    const count = shape.reduce((product, size) => product * size, 1);
    const [scale, start] = [Math.fround(amplitude), Math.fround(offset)];
    const values = uniform(seedOf(`adapters/${file}/${key}`), count);
    const blob = storedBytes(
      values.map((u) => start + Math.fround(u * scale)),
      dtype,
    );
    header[key] = { dtype, shape, data_offsets: [end, end + blob.length] };
    blobs.push(blob);
    end += blob.length;
  }
  return Buffer.concat([headOf(header), ...blobs]);
}
