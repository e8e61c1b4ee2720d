/**
 * An image to start from and its mask, each by a formula of places, as in
 * tests/reference/make_inputs.py.
 */
import type { RawImage } from "../../src/image/read.ts";

const side = 64;
const size = { width: side, height: side };

export const formulaImage: RawImage = { ...size, pixels: new Uint8Array(side * side * 3) };
export const formulaMask: RawImage = { ...size, pixels: new Uint8Array(side * side) };
for (let y = 0; y < side; y++) {
  for (let x = 0; x < side; x++) {
    const at = y * side + x;
    for (let c = 0; c < 3; c++) {
      formulaImage.pixels[3 * at + c] = (5 * x + 3 * y + 70 * c + ((x * y) >> 3)) % 256;
    }
    if (y >= 10 && y < 40 && x >= 20 && x < 60) formulaMask.pixels[at] = 255;
  }
}
