/**
 * Fills a part of an image with the colours around it, blurred the more the farther away they are.
 * Source: A1111, modules/masking.py (fill).
 */
import type { Size } from "./encoder.ts";
import { loadSharp, type RawImage } from "./read.ts";

/** `image` where `mask` is black, and its surroundings where it is white; both of one size. */
export async function filled({ pixels, ...size }: RawImage, mask: RawImage): Promise<RawImage> {
  const sharp = await loadSharp();
  const rgb = sharp(pixels, rawOf(size, 3));
  const alpha = mask.pixels.map((share) => 255 - share);
  const rest = await rgb.joinChannel(Buffer.from(alpha), rawOf(size, 1)).raw().toBuffer();
  const layers: Buffer[] = [];
  for (const [deviation, repeats] of blurs) {
    const layer = await blurredLayer(rest, size, deviation);
    for (let i = 0; i < repeats; i++) layers.push(layer);
  }
  const [first, ...others] = layers.map((input) => ({ input, ...rawOf(size, 4) }));
  const all = await sharp(first!.input, first).composite(others).raw().toBuffer();
  // By itself: sharp would take the alpha away before it lays the layers over each other.
  const opaque = await sharp(all, rawOf(size, 4)).removeAlpha().raw().toBuffer();
  return { ...size, pixels: new Uint8Array(opaque.buffer, opaque.byteOffset, opaque.length) };
}

// --- internal ---

/** Standard deviations in pixels, and how often each layer is laid over those before. */
const blurs: ReadonlyMap<number, number> = new Map([
  [256, 1],
  [64, 1],
  [16, 2],
  [4, 4],
  [2, 2],
  [0, 1],
]);
/** Wider blurs are computed of a smaller image, to the same effect. */
const deviationMax = 8;

function rawOf({ width, height }: Size, channels: 1 | 3 | 4) {
  return { raw: { width, height, channels }, limitInputPixels: false };
}

async function blurredLayer(rgba: Buffer, size: Size, deviation: number): Promise<Buffer> {
  if (deviation === 0) return rgba;
  const sharp = await loadSharp();
  const factor = Math.max(1, deviation / deviationMax);
  const small = {
    width: Math.max(1, Math.round(size.width / factor)),
    height: Math.max(1, Math.round(size.height / factor)),
  };
  const to = (wanted: Size) => ({ ...wanted, fit: "fill" as const, kernel: "linear" as const });
  const shrunk = await sharp(rgba, rawOf(size, 4)).resize(to(small)).raw().toBuffer();
  const blurred = await sharp(shrunk, rawOf(small, 4))
    .blur(deviation / factor)
    .raw()
    .toBuffer();
  return await sharp(blurred, rawOf(small, 4)).resize(to(size)).raw().toBuffer();
}
