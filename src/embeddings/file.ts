/**
 * Vectors of textual inversion for SDXL: `clip_l` (vectors, 768) and `clip_g` (vectors, 1280) in a
 * safetensors file of their own, or under "bundle_emb.NAME." in a LoRA. The names decide which
 * encoder they are for, and the model's config how wide they must be.
 */
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { badWeights, escaped } from "../errors.ts";
import { word } from "../models/config-reader.ts";
import type { Model } from "../models/model.ts";
import {
  readSafetensorsHeader,
  readTensorF32,
  type SafetensorsHeader,
} from "../models/safetensors-header.ts";
import { classifyHeader, describeFile } from "../models/single-file/classify.ts";

export type TextEncoders = Pick<Model, "clip" | "clip2">;

/** The vectors of one name. */
export interface Embedding {
  name: string;
  /** The file that has them. */
  path: string;
  /** (vectors, width of the encoder); null where the file has none for that encoder. */
  rows: Float32Array | null;
  rows2: Float32Array | null;
  /** The larger number of vectors of the two encoders. */
  vectorCount: number;
  /** 12 digits of the SHA-256: of the file, as A1111 names embeddings, or of bundled vectors. */
  hash: string;
  /** About what the file lacks. */
  warnings: string[];
}

/** An embedding that is not read before a prompt mentions it. */
export interface EmbeddingSource {
  name: string;
  path: string;
  /** Throws "bad-weights" for a file that has no embedding for these encoders. */
  read(encoders: TextEncoders): Embedding;
}

/** The embedding in a file of its own. */
export function embeddingFile(name: string, path: string): EmbeddingSource {
  return {
    name,
    path,
    read(encoders) {
      refusePickle(path);
      const header = readSafetensorsHeader(path);
      const dataBytes = header.fileBytes - header.headerBytes - 8;
      if (dataBytes > fileBytesMax) {
        fail(
          path,
          `has ${dataBytes} bytes of tensors: it is no embedding, which has a few vectors`,
        );
      }
      const hash = shortHash([readFileSync(path)]);
      return embeddingIn(header, { name, prefix: "", hash }, encoders);
    },
  };
}

/** The embeddings that a LoRA brings along, by the names that its prompts use. */
export function bundledEmbeddings(header: SafetensorsHeader): EmbeddingSource[] {
  const names = new Set<string>();
  for (const key of header.tensors.keys()) {
    const [, name] = /^bundle_emb\.(.+)\.(?:clip_[lg]|string_to_param\..*)$/.exec(key) ?? [];
    if (name !== undefined) names.add(name);
  }
  return [...names].map((name) => ({
    name,
    path: header.path,
    read: (encoders) =>
      embeddingIn(header, { name, prefix: `bundle_emb.${name}.`, hash: null }, encoders),
  }));
}

// --- internal ---

/** 75 vectors of both encoders in f32 are 0.6 MB. */
const fileBytesMax = 2 ** 26;

/** How programs name the vectors of the two encoders. */
const keys = ["clip_l", "text_encoders_0"];
const keys2 = ["clip_g", "text_encoders_1"];

interface Place {
  name: string;
  /** Stands before the names of its tensors. */
  prefix: string;
  /** null: that of the vectors. */
  hash: string | null;
}

function embeddingIn(
  header: SafetensorsHeader,
  { name, prefix, hash }: Place,
  { clip, clip2 }: TextEncoders,
): Embedding {
  const find = (names: string[]) =>
    names.map((each) => prefix + each).find((key) => header.tensors.has(key));
  const [key, key2] = [find(keys), find(keys2)];
  if (key === undefined && key2 === undefined) refuseOther(header, prefix);
  // A model may lack the first encoder.
  const rows = clip && rowsOf(header, key, clip.hiddenSize, "first");
  const rows2 = rowsOf(header, key2, clip2.hiddenSize, "second");
  const count = clip === null || rows === null ? 0 : rows.length / clip.hiddenSize;
  const count2 = rows2 === null ? 0 : rows2.length / clip2.hiddenSize;
  return {
    name,
    path: header.path,
    rows,
    rows2,
    vectorCount: Math.max(count, count2),
    hash: hash ?? rowsHash([rows, rows2]),
    warnings: [
      ...(clip !== null && key === undefined ? [lack(header.path, name, "clip_l", "first")] : []),
      ...(key2 === undefined ? [lack(header.path, name, "clip_g", "second")] : []),
    ],
  };
}

function rowsOf(
  header: SafetensorsHeader,
  key: string | undefined,
  width: number,
  encoder: "first" | "second",
): Float32Array | null {
  if (key === undefined) return null;
  const { shape } = header.tensors.get(key)!;
  const columns = shape.at(-1) ?? 0;
  if (shape.length < 1 || shape.length > 2 || columns !== width || shape[0] === 0) {
    fail(
      header.path,
      `has ${word(key)} of shape [${shape.join(", ")}], but the model's ${encoder} text encoder ` +
        `reads vectors of ${width}`,
    );
  }
  const rows = readTensorF32(header, key);
  if (!rows.every(Number.isFinite)) {
    fail(header.path, `has a number in ${word(key)} that is not finite`);
  }
  return rows;
}

function lack(path: string, name: string, key: string, encoder: string): string {
  return (
    `${escaped(path, 300)} has no ${key}: the ${encoder} text encoder reads the prompt without ` +
    `${word(name)}.`
  );
}

/** Says what a file without SDXL's names is, as far as its tensors show. */
function refuseOther(header: SafetensorsHeader, prefix: string): never {
  const { path, tensors } = header;
  const own = [...tensors].filter(([key]) => key.startsWith(prefix));
  const named = own.filter(([key]) => /^(emb_params|string_to_param\..*)$/.test(rest(key, prefix)));
  const [only] = named.length > 0 ? named : own.length === 1 ? own : [];
  const width = only?.[1].shape.at(-1);
  const [older] = olderModels.filter((model) => model.width === width);
  if (older !== undefined) {
    fail(
      path,
      `is an embedding for ${older.name} (vectors of ${older.width}); SDXL's have clip_l and ` +
        "clip_g, and no program can convert one to the other",
    );
  }
  const kind = classifyHeader(header);
  if (prefix === "" && kind.kind !== "unknown" && kind.kind !== "embedding") {
    fail(path, `is ${describeFile(kind)}, not an embedding for SDXL`);
  }
  const shown = own.slice(0, 3).map(([key]) => word(key));
  const found = shown.length === 0 ? "no tensors" : shown.join(", ");
  fail(path, `is no embedding for SDXL: it has ${found}, not clip_l and clip_g`);
}

const olderModels = [
  { width: 768, name: "Stable Diffusion 1" },
  { width: 1024, name: "Stable Diffusion 2" },
];

function rest(key: string, prefix: string): string {
  return key.slice(prefix.length);
}

function refusePickle(path: string): void {
  if (!/\.(pt|pth|bin|ckpt|pkl|pickle)$/i.test(path)) return;
  const file = JSON.stringify(basename(path));
  const target = JSON.stringify(basename(path).replace(/\.\w+$/, ".safetensors"));
  fail(
    path,
    "is a pickled file, which can run code when it is read; convert it in Python: " +
      `d = torch.load(${file}, weights_only=True); safetensors.torch.save_file(` +
      `{k: d[k].contiguous() for k in ("clip_l", "clip_g")}, ${target})`,
  );
}

function rowsHash(parts: readonly (Float32Array | null)[]): string {
  return shortHash(parts.flatMap((part) => (part === null ? [] : [new Uint8Array(part.buffer)])));
}

function shortHash(parts: readonly Uint8Array[]): string {
  const hasher = new Bun.CryptoHasher("sha256");
  for (const part of parts) hasher.update(part);
  return hasher.digest("hex").slice(0, 12);
}

function fail(path: string, what: string): never {
  throw badWeights(path, what);
}
