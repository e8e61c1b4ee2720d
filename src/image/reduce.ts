/**
 * Images made smaller or larger by a whole factor, and reduced to a palette.
 */
import { importSharp } from "./sharp.ts";

export interface Pixels {
  width: number;
  height: number;
  /** RGB, row by row. */
  pixels: Uint8Array;
}

/** The means of squares of `factor` pixels a side; rest rows and columns are left out. */
export function reduced(image: Pixels, factor: number): Pixels {
  if (factor <= 1) return image;
  const width = Math.max(1, Math.floor(image.width / factor));
  const height = Math.max(1, Math.floor(image.height / factor));
  const pixels = new Uint8Array(width * height * 3);
  for (let row = 0; row < height; row++) {
    reduceRow(image, row, factor, pixels.subarray(row * width * 3, (row + 1) * width * 3));
  }
  return { width, height, pixels };
}

/** Every pixel as a square of `factor` pixels a side. */
export function enlarged({ width, height, pixels }: Pixels, factor: number): Pixels {
  const wide = width * factor;
  const out = new Uint8Array(wide * height * factor * 3);
  for (let y = 0; y < height * factor; y++) {
    for (let x = 0; x < wide; x++) {
      const from = (Math.floor(y / factor) * width + Math.floor(x / factor)) * 3;
      out.set(pixels.subarray(from, from + 3), (y * wide + x) * 3);
    }
  }
  return { width: wide, height: height * factor, pixels: out };
}

/** One row of `reduced`. */
export function reduceRow(
  { pixels, width }: Pixels,
  row: number,
  factor: number,
  out: Uint8Array,
): void {
  const area = factor * factor;
  for (let i = 0; i < out.length; i++) {
    const [column, colour] = [Math.floor(i / 3) * factor, i % 3];
    let sum = 0;
    for (let y = 0; y < factor; y++) {
      const from = ((row * factor + y) * width + column) * 3 + colour;
      for (let x = 0; x < factor; x++) sum += pixels[from + 3 * x]!;
    }
    out[i] = Math.round(sum / area);
  }
}

/** The image in 256 colours of its own, dithered; itself where sharp cannot be loaded. */
export async function withPalette({ width, height, pixels }: Pixels): Promise<Pixels> {
  try {
    const sharp = await importSharp();
    const raw = { width, height, channels: 3 as const };
    const png = await sharp(pixels, { raw }).png({ palette: true, colours: 256 }).toBuffer();
    return { width, height, pixels: await sharp(png).removeAlpha().raw().toBuffer() };
  } catch {
    return { width, height, pixels };
  }
}
