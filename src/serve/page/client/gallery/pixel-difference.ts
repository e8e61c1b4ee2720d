/**
 * How far two images differ, pixel by pixel.
 */

export interface PixelDifference {
  /** The largest difference of a channel in each pixel, 0 to 255. */
  values: Uint8Array;
  largest: number;
  /** In dB, over all channels; infinite for equal images. */
  psnr: number;
}

/** Of RGBA bytes; alpha does not count. */
export function differenceOfPixels(a: ArrayLike<number>, b: ArrayLike<number>): PixelDifference {
  const values = new Uint8Array(a.length / 4);
  let squares = 0;
  let largest = 0;
  for (let pixel = 0; pixel < values.length; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      const apart = Math.abs(a[4 * pixel + channel]! - b[4 * pixel + channel]!);
      squares += apart * apart;
      if (apart > values[pixel]!) values[pixel] = apart;
    }
    if (values[pixel]! > largest) largest = values[pixel]!;
  }
  const psnr = 10 * Math.log10((255 * 255) / (squares / (3 * values.length)));
  return { values, largest, psnr };
}
