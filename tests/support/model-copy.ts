/**
 * A copy of a model folder that a test may damage: everything is linked except the named weights
 * file, whose tensors it can change, drop or add.
 */

import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { headOf } from "../../src/bench/support/safetensors.ts";

/** One tensor as the file has it: bytes are raw. */
export interface RawTensor {
  dtype: string;
  shape: number[];
  bytes: Uint8Array;
}

export type Tensors = Map<string, RawTensor>;

export type Metadata = Record<string, string>;

const golden = join(import.meta.dir, "../fixtures/golden/model");
const copies: string[] = [];

/** Copies the golden model and rewrites one weights file, with what `metadata` holds then. */
export function copyModel(
  weightsFile: string,
  change: (tensors: Tensors) => void,
  metadata?: Metadata,
): string {
  const folder = copyFolder();
  changeFile(join(folder, weightsFile), change, metadata);
  return folder;
}

/** Rewrites a weights file, with what `metadata` holds after `change`. */
export function changeFile(
  path: string,
  change: (tensors: Tensors) => void,
  metadata?: Metadata,
): void {
  const tensors = readRaw(path);
  change(tensors);
  writeFileSync(path, rawFile(tensors, metadata));
}

/** Copies the golden model and changes the bytes of one file. */
export function copyModelBytes(file: string, change: (bytes: Uint8Array) => Uint8Array): string {
  const folder = copyFolder();
  const path = join(folder, file);
  writeFileSync(path, change(new Uint8Array(readFileSync(path))));
  return folder;
}

export function removeCopies(): void {
  for (const folder of copies.splice(0)) rmSync(folder, { recursive: true, force: true });
}

// --- internal ---

function copyFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-model-"));
  copies.push(folder);
  cpSync(golden, folder, { recursive: true });
  return folder;
}

/** The tensors of a safetensors file. */
export function readRaw(path: string): Tensors {
  const file = readFileSync(path);
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + headerBytes).toString("utf8"));
  const data = file.subarray(8 + headerBytes);
  const tensors: Tensors = new Map();
  for (const [name, { dtype, shape, data_offsets }] of Object.entries<{
    dtype: string;
    shape: number[];
    data_offsets: [number, number];
  }>(header)) {
    if (name === "__metadata__") continue;
    tensors.set(name, { dtype, shape, bytes: data.subarray(...data_offsets) });
  }
  return tensors;
}

/** The bytes of a safetensors file. */
export function rawFile(tensors: Tensors, metadata?: Metadata): Uint8Array {
  const header: Record<string, unknown> = metadata ? { __metadata__: metadata } : {};
  let offset = 0;
  for (const [name, { dtype, shape, bytes }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes.length] };
    offset += bytes.length;
  }
  return Buffer.concat([headOf(header), ...[...tensors.values()].map(({ bytes }) => bytes)]);
}
