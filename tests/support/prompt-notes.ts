/**
 * What A1111's and ComfyUI's own code made of prompts (tests/reference/make_prompts.py).
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

interface PromptNotes {
  /** Vectors of each embedding. */
  vectors: Record<string, number>;
  steps: number;
  /** Prompts whose states are recorded, and with which emphasis. */
  states: Record<string, string>;
  modes: Record<string, string[]>;
  /** Digests by prompt: A1111's pieces, ComfyUI's, chunks of both, A1111's schedule. */
  prompts: Record<string, string>;
}

const fixtures = join(import.meta.dir, "../fixtures");

export const promptNotes = JSON.parse(
  readFileSync(join(fixtures, "prompts.json"), "utf8"),
) as PromptNotes;

/** The digests of one prompt by name. */
export function digestsOf(prompt: string) {
  const all = promptNotes.prompts[prompt]!.split(" ");
  const [a1111 = "", comfyui = "", chunksA1111 = "", chunksComfyui = "", turns = ""] = all;
  return { a1111, comfyui, chunksA1111, chunksComfyui, turns };
}

/** Of texts with a number each. */
export function digestOfPieces(pieces: readonly { text: string; weight: number }[]): string {
  return digest(
    pieces.flatMap(({ text, weight }) => [
      new TextEncoder().encode(`${text}\0`),
      new Uint8Array(Float64Array.of(weight).buffer),
    ]),
  );
}

/** Of ids with a weight each, one encoder after the other. */
export function digestOfIds(encoders: readonly [Int32Array, Float32Array | undefined][]): string {
  return digest(
    encoders.flatMap(([ids, weights]) =>
      [...ids].flatMap((id, at) => [
        new Uint8Array(Int32Array.of(id).buffer),
        new Uint8Array(Float32Array.of(weights?.[at] ?? 1).buffer),
      ]),
    ),
  );
}

// --- internal ---

function digest(parts: readonly Uint8Array[]): string {
  const hasher = new Bun.CryptoHasher("sha256");
  for (const part of parts) hasher.update(part);
  return hasher.digest("hex").slice(0, 6);
}
