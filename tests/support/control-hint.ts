/**
 * The hint of tests/reference/make_controls.py, for any size.
 */
import type { RawImage } from "../../src/image/read.ts";

/** `turned`: left and right are swapped. */
export function controlHint(width: number, height: number, turned = false): RawImage {
  const pixels = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = y * width + (turned ? width - 1 - x : x);
      for (let c = 0; c < 3; c++) {
        pixels[3 * at + c] = (3 * x + 7 * y + 50 * c + ((x * y) >> 4)) % 256;
      }
    }
  }
  return { pixels, width, height };
}
