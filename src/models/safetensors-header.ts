/**
 * The header of a safetensors file, read without its tensors: 8 bytes of length, then JSON. All
 * is checked against the file's size, so that a tensor of the header can be read.
 * Source: https://huggingface.co/docs/safetensors (format section).
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { BasedXLError, escaped } from "../errors.ts";
import { sentenceOf, weightsProblem } from "./files.ts";

interface HeaderTensor {
  /** The file's name of the type, such as "F16". */
  dtype: string;
  shape: readonly number[];
  /** Offsets in the file, in bytes. */
  begin: number;
  end: number;
}

export interface SafetensorsHeader {
  path: string;
  fileBytes: number;
  /** Bytes of the JSON text; the tensors begin 8 bytes later. */
  headerBytes: number;
  tensors: ReadonlyMap<string, HeaderTensor>;
  /** `__metadata__`. */
  metadata: ReadonlyMap<string, string>;
}

/** Throws "bad-weights" with one sentence where the file is not a whole safetensors file. */
export function readSafetensorsHeader(path: string): SafetensorsHeader {
  const problem = weightsProblem(path);
  if (problem !== null) {
    throw new BasedXLError("bad-weights", `${path} ${sentenceOf(problem)}`);
  }
  const file = openSync(path, "r");
  try {
    const { size } = fstatSync(file);
    return parseHeader(path, size, headerText(path, file, size));
  } finally {
    closeSync(file);
  }
}

/**
 * The values of a tensor of type F64, F32, F16 or BF16, as f32. For small tensors: blocks. Throws
 * "bad-weights" for another type or a missing tensor.
 */
export function readTensorF32(header: SafetensorsHeader, name: string): Float32Array {
  const tensor = header.tensors.get(name);
  const shown = escaped(name, 80);
  if (tensor === undefined) fail(header.path, `has no tensor ${shown}`);
  const size = elementBytes[tensor.dtype];
  const read = readers[tensor.dtype];
  if (size === undefined || read === undefined) {
    fail(
      header.path,
      `has tensor ${shown} in type ${escaped(tensor.dtype, 20)}, not in F32 or F16`,
    );
  }
  const bytes = Buffer.alloc(tensor.end - tensor.begin);
  const file = openSync(header.path, "r");
  try {
    if (readSync(file, bytes, 0, bytes.length, tensor.begin) < bytes.length) {
      fail(header.path, "was cut short since its header was read");
    }
  } finally {
    closeSync(file);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Float32Array.from({ length: bytes.length / size }, (_, i) => read(view, i * size));
}

// --- internal ---

/** Many times what the largest SDXL file has: nobody's header is worth more memory. */
const headerBytesMax = 2 ** 25;
const tensorCountMax = 100_000;
const rankMax = 8;

const elementBytes: Readonly<Record<string, number | undefined>> = {
  ...{ F64: 8, I64: 8, U64: 8, C64: 8, F32: 4, I32: 4, U32: 4, F16: 2, BF16: 2, I16: 2, U16: 2 },
  ...{ F8_E4M3: 1, F8_E5M2: 1, F8_E8M0: 1, I8: 1, U8: 1, BOOL: 1 },
};

type Reader = (view: DataView, offset: number) => number;
const bits = new DataView(new ArrayBuffer(4));
const readers: Readonly<Record<string, Reader | undefined>> = {
  F64: (view, offset) => view.getFloat64(offset, true),
  F32: (view, offset) => view.getFloat32(offset, true),
  F16: (view, offset) => view.getFloat16(offset, true),
  BF16: (view, offset) => {
    bits.setUint32(0, view.getUint16(offset, true) << 16, true);
    return bits.getFloat32(0, true);
  },
};

function headerText(path: string, file: number, size: number): string {
  const length = Buffer.alloc(8);
  if (size < 8 || readSync(file, length, 0, 8, 0) < 8) {
    fail(path, `is not a safetensors file: it has ${size} bytes`);
  }
  const headerBytes = Number(length.readBigUInt64LE());
  if (headerBytes > size - 8) {
    fail(path, `is cut off: its header alone takes ${headerBytes} bytes, and the file has ${size}`);
  }
  if (headerBytes > headerBytesMax) {
    fail(path, `has a header of ${headerBytes} bytes; at most ${headerBytesMax} are read`);
  }
  const bytes = Buffer.alloc(headerBytes);
  if (readSync(file, bytes, 0, headerBytes, 8) < headerBytes) fail(path, "cannot be read whole");
  return bytes.toString("utf8");
}

function parseHeader(path: string, fileBytes: number, text: string): SafetensorsHeader {
  const headerBytes = Buffer.byteLength(text);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    fail(path, "is not a safetensors file: its header is not valid JSON");
  }
  if (!isObject(json)) fail(path, "has a header that is not a JSON object");
  const tensors = new Map<string, HeaderTensor>();
  const metadata = new Map<string, string>();
  for (const [name, entry] of Object.entries(json)) {
    if (name === "__metadata__") {
      if (!isObject(entry)) continue;
      for (const [key, value] of Object.entries(entry)) metadata.set(key, String(value));
      continue;
    }
    if (tensors.size === tensorCountMax) fail(path, `names more than ${tensorCountMax} tensors`);
    tensors.set(name, tensorOf(path, name, entry, 8 + headerBytes, fileBytes));
  }
  return { path, fileBytes, headerBytes, tensors, metadata };
}

function tensorOf(
  path: string,
  name: string,
  entry: unknown,
  dataBegin: number,
  fileBytes: number,
): HeaderTensor {
  const { dtype, shape, data_offsets: offsets } = isObject(entry) ? entry : {};
  const isWhole = typeof dtype === "string" && isCounts(shape) && isCounts(offsets);
  if (!isWhole || shape.length > rankMax || offsets.length !== 2) {
    fail(path, `does not describe its tensor ${escaped(name, 80)}`);
  }
  const [first = 0, last = 0] = offsets;
  const count = shape.reduce((product, dimension) => product * dimension, 1);
  const size = elementBytes[dtype];
  if (first > last || (size !== undefined && count * size !== last - first)) {
    fail(path, `gives its tensor ${escaped(name, 80)} bytes that do not fit its shape`);
  }
  const missing = dataBegin + last - fileBytes;
  if (missing > 0) fail(path, `is cut off: ${missing} bytes of ${escaped(name, 80)} are missing`);
  return { dtype, shape, begin: dataBegin + first, end: dataBegin + last };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((each) => Number.isSafeInteger(each) && each >= 0);
}

function fail(path: string, what: string): never {
  throw new BasedXLError("bad-weights", `${path} ${what}.`);
}
