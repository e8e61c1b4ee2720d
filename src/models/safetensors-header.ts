/**
 * The header of a safetensors file, read without its tensors: 8 bytes of length, then JSON. All
 * is checked against the file's size, so that a tensor of the header can be read.
 * Source: https://huggingface.co/docs/safetensors (format section).
 */
import { BasedXLError, escaped } from "../errors.ts";
import { sentenceOf, weightsProblem } from "./files.ts";
import { readPieces } from "./pieces.ts";
import { depthMax, JsonReader, NotJson, TooDeep } from "./safetensors-json.ts";

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
  if (problem !== null) fail(path, sentenceOf(problem).slice(0, -1));
  return readPieces(path, ({ size, at }) => {
    const headerBytes = headerBytesOf(path, at(0, 8), size);
    const bytes = at(8, headerBytes);
    if (bytes.length < headerBytes) fail(path, "cannot be read whole");
    return parseSafetensorsHeader(path, size, bytes);
  });
}

/** The same for a header that was read: `json`, without the 8 bytes of its length. */
export function parseSafetensorsHeader(
  path: string,
  fileBytes: number,
  json: Buffer,
): SafetensorsHeader {
  try {
    return parseHeader(path, fileBytes, json);
  } catch (error) {
    if (error instanceof NotJson) fail(path, `has a header that is not valid JSON; ${again}`);
    if (!(error instanceof TooDeep)) throw error;
    fail(path, `has a header that is nested deeper than ${depthMax - 1} levels`);
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
  const size = elementBytes.get(tensor.dtype);
  const read = readers[tensor.dtype];
  if (size === undefined || read === undefined) {
    fail(
      header.path,
      `has tensor ${shown} in type ${escaped(tensor.dtype, 20)}, not in F32 or F16`,
    );
  }
  const count = tensor.end - tensor.begin;
  const bytes = readPieces(header.path, ({ at }) => at(tensor.begin, count));
  if (bytes.length < count) fail(header.path, "was cut short since its header was read");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Float32Array.from({ length: bytes.length / size }, (_, i) => read(view, i * size));
}

// --- internal ---

/** The limits of zig/weights/safetensors.zig, which reads the same files. */
const headerBytesMax = 100_000_000;
const tensorCountMax = 100_000;
const rankMax = 8;
/** More than any program writes; they are skipped. */
const metadataCountMax = 10_000;
const elementCountMax = 2n ** 64n - 1n;
/** Products up to here are exact, and so are their bytes. */
const byteCountExact = 2 ** 50;
const again = "copy or download the file again";

const elementBytes: ReadonlyMap<string, number> = new Map(
  Object.entries({
    ...{ F64: 8, I64: 8, U64: 8, C64: 8, F32: 4, I32: 4, U32: 4, F16: 2, BF16: 2, I16: 2, U16: 2 },
    ...{ F8_E4M3: 1, F8_E5M2: 1, F8_E8M0: 1, I8: 1, U8: 1, BOOL: 1 },
  }),
);

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

/** The length that the file's first 8 bytes give its header. */
function headerBytesOf(path: string, length: Buffer, fileBytes: number): number {
  if (length.length < 8) fail(path, `is not a safetensors file: it has ${length.length} bytes`);
  const headerBytes = Number(length.readBigUInt64LE());
  if (headerBytes > headerBytesMax) {
    fail(path, `is not a safetensors file: its header would take ${headerBytes} bytes`);
  }
  if (headerBytes <= fileBytes - 8) return headerBytes;
  const missing = 8 + headerBytes - fileBytes;
  fail(path, `is cut off in its header, of which ${missing} bytes are missing; ${again}`);
}

function parseHeader(path: string, fileBytes: number, json: Buffer): SafetensorsHeader {
  const reader = new JsonReader(json);
  const tensors = new Map<string, HeaderTensor>();
  const metadata = new Map<string, string>();
  if (!reader.opensObject()) fail(path, "has a header that is not a JSON object");
  for (const name of reader.keys()) {
    if (name === "__metadata__") {
      readMetadata(reader, metadata);
      continue;
    }
    if (tensors.size === tensorCountMax) fail(path, `names more than ${tensorCountMax} tensors`);
    if (tensors.has(name)) fail(path, `names its tensor ${escaped(name, 80)} twice`);
    tensors.set(name, readTensor(reader, path, name, 8 + json.length));
  }
  reader.end();
  checkEnd(path, fileBytes, tensors, 8 + json.length);
  checkOverlap(path, tensors);
  return { path, fileBytes, headerBytes: json.length, tensors, metadata };
}

/** Values that are no strings are kept as the file has them. */
function readMetadata(reader: JsonReader, metadata: Map<string, string>): void {
  if (!reader.opensObject()) {
    reader.skip();
    return;
  }
  for (const key of reader.keys()) {
    const value = reader.string() ?? reader.textOf(reader.skip());
    if (metadata.size < metadataCountMax) metadata.set(key, value);
  }
}

function readTensor(
  reader: JsonReader,
  path: string,
  name: string,
  dataBegin: number,
): HeaderTensor {
  const refuse: (what: string) => never = (what) =>
    fail(path, `does not describe its tensor ${escaped(name, 80)}: ${what}`);
  let dtype: string | null = null;
  let shape: (number | bigint)[] | null = null;
  let offsets: (number | bigint)[] | null = null;
  if (!reader.opensObject()) refuse("it is not a JSON object");
  for (const field of reader.keys()) {
    if (field === "dtype") {
      if (dtype !== null) refuse("it has two entries dtype");
      dtype = reader.string() ?? refuse("its dtype is not a string");
    } else if (field === "shape") {
      if (shape !== null) refuse("it has two entries shape");
      shape = reader.counts(rankMax) ?? refuse(`its shape ${notCounts}`);
    } else if (field === "data_offsets") {
      if (offsets !== null) refuse("it has two entries data_offsets");
      offsets = reader.counts(2) ?? refuse(notOffsets);
    } else {
      reader.skip();
    }
  }
  if (dtype === null) return refuse("it has no dtype");
  if (shape === null) return refuse("it has no shape");
  if (offsets === null) return refuse("it has no data_offsets");
  const [first, last] = offsets;
  if (first === undefined || last === undefined) return refuse(notOffsets);
  if (first > last) refuse("it ends before it begins");
  const bytes = byteCountOf(dtype, shape);
  // Offsets that are not exact lie far beyond the file, which is refused in the end.
  const begin = dataBegin + Number(first);
  const end = dataBegin + Number(last);
  if (bytes !== null && end - begin !== bytes) {
    refuse(`it takes ${end - begin} bytes, which do not fit its shape`);
  }
  return { dtype, shape: shape.map(Number), begin, end };
}

const notCounts = `is no list of at most ${rankMax} whole numbers from 0`;
const notOffsets = "its data_offsets are no two whole numbers from 0";

/** The bytes of a tensor; null for a type that is not known, NaN where nobody could count them. */
function byteCountOf(dtype: string, shape: readonly (number | bigint)[]): number | null {
  const size = elementBytes.get(dtype);
  let count = 1;
  for (const dimension of shape) count *= Number(dimension);
  if (count > 0 && count <= byteCountExact) return size === undefined ? null : count * size;
  let exact = 1n;
  for (const dimension of shape) {
    exact *= BigInt(dimension);
    if (exact > elementCountMax) return Number.NaN;
  }
  return size === undefined ? null : Number(exact) * size;
}

/** The last tensor ends with the file, as the reference implementation demands. */
function checkEnd(
  path: string,
  fileBytes: number,
  tensors: ReadonlyMap<string, HeaderTensor>,
  dataBegin: number,
): void {
  let end = dataBegin;
  for (const tensor of tensors.values()) end = Math.max(end, tensor.end);
  const missing = end - fileBytes;
  if (missing > 0) {
    fail(path, `is cut off: ${missing} of ${end} bytes are missing; ${again}`);
  }
  if (missing < 0) {
    fail(path, `is too long: its last tensor ends ${-missing} bytes before the file; ${again}`);
  }
}

function checkOverlap(path: string, tensors: ReadonlyMap<string, HeaderTensor>): void {
  const inOrder = [...tensors].filter(([, { begin, end }]) => end > begin);
  // As programs write them, mostly, and sorting would take longer than reading.
  if (inOrder.some(([, { begin }], index) => begin < (inOrder[index - 1]?.[1].end ?? 0))) {
    inOrder.sort(([, a], [, b]) => a.begin - b.begin);
  }
  for (const [index, [name, { begin }]] of inOrder.entries()) {
    const before = inOrder[index - 1];
    if (before === undefined || begin >= before[1].end) continue;
    fail(path, `has tensors that overlap: ${escaped(before[0], 80)} and ${escaped(name, 80)}`);
  }
}

function fail(path: string, what: string): never {
  throw new BasedXLError("bad-weights", `${path} ${what}.`);
}
