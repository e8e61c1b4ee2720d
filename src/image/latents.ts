/**
 * Writes a latent as a safetensors file with one f32 tensor named "latents", NCHW. The values are
 * in the scheduler's scale: a reader divides by the VAE's scaling factor before decoding.
 */
import assert from "node:assert/strict";
import { writeWhole } from "./files.ts";

type LatentShape = readonly [batch: number, channels: number, height: number, width: number];

/** Writes the file atomically. Throws `BasedXLError` "io" when it cannot be written. */
export async function writeLatents(
  path: string,
  latents: Float32Array,
  shape: LatentShape,
): Promise<void> {
  await writeWhole(path, encodeLatents(latents, shape));
}

/**
 * The bytes of the file: header length (u64), JSON header padded with spaces to 8 bytes so that the
 * values are aligned for readers that map the file, then the values. All little-endian.
 */
export function encodeLatents(latents: Float32Array, shape: LatentShape): Uint8Array {
  const elementCount = shape.reduce((product, size) => product * size, 1);
  assert.equal(latents.length, elementCount, `latents ${latents.length} != shape ${shape}`);
  const header = JSON.stringify({
    latents: { dtype: "F32", shape, data_offsets: [0, latents.byteLength] },
  });
  const headerBytes = Math.ceil(header.length / 8) * 8;
  const file = new Uint8Array(8 + headerBytes + latents.byteLength);
  new DataView(file.buffer).setBigUint64(0, BigInt(headerBytes), true);
  file.set(new TextEncoder().encode(header.padEnd(headerBytes)), 8);
  // Every supported platform is little-endian, so the array's bytes are written unchanged.
  file.set(new Uint8Array(latents.buffer, latents.byteOffset, latents.byteLength), 8 + headerBytes);
  return file;
}
