/**
 * Where the files of a network have each weight, as structs of the library: files that use other
 * keys than diffusers, or have several weights in one tensor.
 */
import { sizeOfWeightName, writeWeightName } from "./abi.ts";
import { bytesOf } from "./library.ts";

/** The weights of one network. */
export interface NetworkFiles {
  /** Absolute paths of safetensors files: one, or all shards. */
  files: string[];
  /** By diffusers' keys; null where the files use these. */
  names: ReadonlyMap<string, WeightSource> | null;
}

interface WeightSource {
  /** Key in the file. */
  name: string;
  part?: readonly [index: number, count: number];
  transposed?: boolean;
}

/** Paths and names for the library, which copies them; the arrays must live until then. */
export function networkBytes({ files, names }: NetworkFiles) {
  const paths = new TextEncoder().encode(files.map((path) => `${path}\0`).join(""));
  const entries = [...(names ?? [])];
  const text = new TextEncoder().encode(entries.flatMap(([key, { name }]) => [key, name]).join(""));
  const start = bytesOf(text).address;
  const bytes = new Uint8Array(entries.length * sizeOfWeightName);
  const view = new DataView(bytes.buffer);
  let offset = 0n;
  const next = (word: string) => {
    const len = BigInt(Buffer.byteLength(word));
    offset += len;
    return { address: start + offset - len, len };
  };
  for (const [index, [key, source]] of entries.entries()) {
    const [partIndex, partCount] = source.part ?? [0, 1];
    writeWeightName(view, index * sizeOfWeightName, {
      key: next(key),
      name: next(source.name),
      partIndex,
      partCount,
      isTransposed: Number(source.transposed ?? false),
    });
  }
  return { files: bytesOf(paths), names: bytesOf(bytes), keepAlive: [paths, text, bytes] };
}
