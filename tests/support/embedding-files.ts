/**
 * Files of textual inversion whose vectors are formulas, the same as in
 * tests/reference/make_embeddings.py.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { formulaInput } from "../../src/bench/support/references.ts";
import { rawFile, type Tensors } from "./model-copy.ts";

interface EmbeddingNotes {
  amplitude: number;
  /** Vectors for each encoder. */
  embeddings: Record<string, [number, number]>;
  prompts: Record<string, string>;
  runs: [{ prompt: string; negative: string; seed: number; steps: number; guidance: number }];
}

const fixtures = join(import.meta.dir, "../fixtures");
const folders: string[] = [];

/** What the reference recorded, and from what. */
export const notes = JSON.parse(
  readFileSync(join(fixtures, "embeddings.json"), "utf8"),
) as EmbeddingNotes;

/** Widths of the golden model's encoders. */
const widths = { clip_l: 64, clip_g: 128 };

/** Writes all embeddings of the reference to a new folder, and gives their paths by name. */
export function embeddingFiles(): Map<string, string> {
  const folder = newFolder();
  return new Map(
    Object.keys(notes.embeddings).map((name) => [
      name,
      writeTensors(folder, `${name}.safetensors`, embeddingTensors(name)),
    ]),
  );
}

/** The vectors of one embedding of the reference by their keys in its file. */
export function embeddingTensors(name: string, prefix = ""): Tensors {
  const tensors: Tensors = new Map();
  for (const [i, key] of (["clip_l", "clip_g"] as const).entries()) {
    const count = notes.embeddings[name]![i]!;
    if (count === 0) continue;
    const shape = [count, widths[key]];
    const { data } = formulaInput(`embeddings/${name}.${key}`, shape, notes.amplitude);
    tensors.set(prefix + key, { dtype: "F32", shape, bytes: new Uint8Array(data.buffer) });
  }
  return tensors;
}

/** Zeros of a shape. */
export function zeros(...shape: number[]): Tensors extends Map<string, infer T> ? T : never {
  const count = shape.reduce((product, size) => product * size, 1);
  return { dtype: "F16", shape, bytes: new Uint8Array(2 * count) };
}

export function writeTensors(folder: string, file: string, tensors: Tensors): string {
  const path = join(folder, file);
  writeFileSync(path, rawFile(tensors));
  return path;
}

export function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-embeddings-"));
  folders.push(folder);
  return folder;
}

export function removeEmbeddings(): void {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
}
