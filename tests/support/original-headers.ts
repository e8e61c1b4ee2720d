/**
 * The tensors of full-size checkpoints of the SDXL family, with diffusers' own conversion of their
 * keys: tests/fixtures/original-headers.br, written by tests/reference/make_original_headers.py.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { brotliDecompressSync } from "node:zlib";

/** Key in the file, shape, diffusers' key; "0" to "2" for a third, "T" where it is transposed. */
export type OriginalTensor = [name: string, shape: number[], key: string, part?: string];

interface OriginalHeaders {
  unet: Record<string, OriginalTensor[]>;
  clip: OriginalTensor[];
  clip2: OriginalTensor[];
  vae: OriginalTensor[];
}

const path = join(import.meta.dir, "../fixtures/original-headers.br");
export const originalHeaders = JSON.parse(
  brotliDecompressSync(readFileSync(path)).toString("utf8"),
) as OriginalHeaders;

/** All tensors of a checkpoint with that UNet. A refiner has only the second text encoder. */
export function checkpointTensors(variant: string): OriginalTensor[] {
  const { unet, clip, clip2, vae } = originalHeaders;
  if (variant !== "refiner") return [...unet[variant]!, ...clip, ...clip2, ...vae];
  const moved = clip2.map(([name, ...rest]): OriginalTensor => {
    return [name.replace("embedders.1.", "embedders.0."), ...rest];
  });
  return [...unet[variant]!, ...moved, ...vae];
}

/** Shapes by the file's keys. */
export function shapesOf(tensors: readonly OriginalTensor[]): Map<string, number[]> {
  return new Map(tensors.map(([name, shape]) => [name, shape]));
}
