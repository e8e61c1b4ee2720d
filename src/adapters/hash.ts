/**
 * The hash by which sites and other programs know a LoRA (AutoV3): the first 12 digits of the
 * SHA-256 of all tensors, without the header, which programs rewrite.
 */
import { createReadStream } from "node:fs";
import type { SafetensorsHeader } from "../models/safetensors-header.ts";

/** Reads the whole file, in pieces. */
export async function autoV3Of({ path, headerBytes }: SafetensorsHeader): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256");
  for await (const piece of createReadStream(path, { start: 8 + headerBytes, highWaterMark })) {
    hasher.update(piece as Buffer);
  }
  return hasher.digest("hex").slice(0, 12);
}

// --- internal ---

const highWaterMark = 2 ** 22;
