/**
 * Reads and begins safetensors files for tests and benches. The reader converts every number to
 * f32. It trusts its input
 * (fixtures, files that tests wrote): only the Zig reader checks every bound. I64 is converted too,
 * so keep integers below 2^24.
 */

import { readFileSync, writeFileSync } from "node:fs";

/** One tensor; `data` is row-major in `shape`, whatever `dtype` it was stored in. */
export interface Tensor {
  dtype: string;
  shape: number[];
  data: Float32Array;
}

interface HeaderEntry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/**
 * The beginning of a safetensors file with this header: its length and its JSON, after which the
 * data begins at a multiple of `alignment` bytes.
 */
export function headOf(header: Readonly<Record<string, unknown>>, alignment = 1): Buffer {
  const text = Buffer.from(JSON.stringify(header));
  const end = Math.ceil((8 + text.length) / alignment) * alignment;
  const head = Buffer.alloc(end, " ");
  head.writeBigUInt64LE(BigInt(end - 8));
  text.copy(head, 8);
  return head;
}

/** Every tensor of the file at `path`, by name. Throws on dtypes other than F32, F16, BF16, I64. */
export function readSafetensors(path: string): Map<string, Tensor> {
  const bytes = readFileSync(path);
  const headerBytes = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + headerBytes)) as Record<
    string,
    HeaderEntry
  >;
  const tensors = new Map<string, Tensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [start, end] = entry.data_offsets;
    // Copy: typed arrays need an aligned offset, and safetensors data is packed.
    const raw = new Uint8Array(bytes.subarray(8 + headerBytes + start, 8 + headerBytes + end));
    const data = widen(raw.buffer, entry.dtype, name);
    tensors.set(name, { dtype: entry.dtype, shape: entry.shape, data });
  }
  return tensors;
}

/** Writes tensors as F32, one behind the other. */
export function writeAsF32(path: string, tensors: ReadonlyMap<string, Tensor>): void {
  const header: Record<string, unknown> = {};
  let offset = 0;
  for (const [name, { shape, data }] of tensors) {
    const end = offset + data.byteLength;
    header[name] = { dtype: "F32", shape, data_offsets: [offset, end] };
    offset = end;
  }
  const blobs = [...tensors.values()].map(({ data }) => Buffer.from(data.buffer));
  writeFileSync(path, Buffer.concat([headOf(header, 8), ...blobs]));
}

/** The tensor `name`; throws an error that lists the existing names when it is missing. */
export function tensorOf(tensors: Map<string, Tensor>, name: string): Tensor {
  const tensor = tensors.get(name);
  if (!tensor) throw new Error(`no tensor ${name} among ${[...tensors.keys()].join(", ")}`);
  return tensor;
}

// --- internal ---

function widen(raw: ArrayBuffer, dtype: string, name: string): Float32Array {
  switch (dtype) {
    case "F32":
      return new Float32Array(raw);
    case "F16":
      return Float32Array.from(new Float16Array(raw));
    case "BF16": {
      const high = new Uint16Array(raw);
      return new Float32Array(Uint32Array.from(high, (half) => half << 16).buffer);
    }
    case "I64":
      return Float32Array.from(new BigInt64Array(raw), Number);
    default:
      throw new Error(`tensor ${name} has dtype ${dtype}, which the test reader does not support`);
  }
}
