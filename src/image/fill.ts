/**
 * Fills a part of an image with the colours around it, blurred the more the farther away they are,
 * to the level as A1111 does it with Pillow: colours times their shares in 8 bits, blurred, and the
 * layers laid over each other.
 * Sources: A1111, modules/masking.py (fill); Pillow's src/libImaging/Convert.c, AlphaComposite.c.
 */
import { pillowBlur } from "./pillow-blur.ts";
import type { RawImage } from "./read.ts";

/** `image` where `mask` is black, and its surroundings where it is white; both of one size. */
export async function filled({ pixels, ...size }: RawImage, mask: RawImage): Promise<RawImage> {
  const rest = withoutMasked(pixels, mask.pixels);
  const out = new Uint8Array(rest.length);
  for (const [deviation, repeats] of blurs) {
    const layer = deviation === 0 ? rest : await pillowBlur(rest, size, { channels, deviation });
    for (let i = 0; i < repeats; i++) layOver(out, layer);
  }
  const rgb = new Uint8Array(pixels.length);
  for (let i = 0, at = 0; at < out.length; i += 3, at += 4) rgb.set(out.subarray(at, at + 3), i);
  return { ...size, pixels: rgb };
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
const channels = 4;

/** The image times what the mask leaves of it, which is the fourth channel. */
function withoutMasked(rgb: Uint8Array, mask: Uint8Array): Uint8Array {
  const out = new Uint8Array(channels * mask.length);
  for (const [i, share] of mask.entries()) {
    const kept = 255 - share;
    for (let c = 0; c < 3; c++) out[channels * i + c] = dividedBy255(rgb[3 * i + c]! * kept);
    out[channels * i + 3] = kept;
  }
  return out;
}

/** Rounded. */
function dividedBy255(value: number): number {
  const more = value + 128;
  return ((more >> 8) + more) >> 8;
}

/** `layer` over `out`; colours of the layer are times their shares, those of `out` are not. */
function layOver(out: Uint8Array, layer: Uint8Array): void {
  for (let at = 0; at < out.length; at += channels) {
    const share = layer[at + 3]!;
    if (share === 0) continue;
    const rest = out[at + 3]! * (255 - share);
    const total = share * 255 + rest;
    const ofLayer = Math.floor((share * 255 * 255 * precision) / total);
    const ofOut = 255 * precision - ofLayer;
    for (let c = 0; c < 3; c++) {
      const colour = share === 255 ? layer[at + c]! : Math.min(255, plain(layer[at + c]!, share));
      const sum = colour * ofLayer + out[at + c]! * ofOut + 128 * precision;
      out[at + c] = (((sum >>> 8) + sum) >>> 8) / precision;
    }
    out[at + 3] = dividedBy255(total);
  }
}

/** Of the composite's factors. */
const precision = 128;

function plain(colour: number, share: number): number {
  return Math.floor((255 * colour) / share);
}
