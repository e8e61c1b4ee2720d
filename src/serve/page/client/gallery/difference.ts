/**
 * How far two images of the gallery differ, as a picture.
 */
import { differenceOfPixels, type PixelDifference } from "./pixel-difference.ts";

export interface Difference extends PixelDifference {
  width: number;
  height: number;
}

/** Rejects where an image cannot be loaded, or their sizes differ. */
export async function differenceOf(first: string, second: string): Promise<Difference> {
  const [a, b] = await Promise.all([pixelsOf(first), pixelsOf(second)]);
  if (a.width !== b.width || a.height !== b.height) {
    throw new Error(
      `The images differ in size: ${a.width} × ${a.height} and ${b.width} × ${b.height}.`,
    );
  }
  return { width: a.width, height: a.height, ...differenceOfPixels(a.data, b.data) };
}

/** Dark where the images are equal, then blue, orange and white, with the largest at the end. */
export function drawDifference(canvas: HTMLCanvasElement, difference: Difference): void {
  const { width, height, values, largest } = difference;
  canvas.width = width;
  canvas.height = height;
  const picture = new ImageData(width, height);
  for (let pixel = 0; pixel < values.length; pixel++) {
    const share = largest === 0 ? 0 : Math.sqrt(values[pixel]! / largest);
    picture.data.set(colourOf(share), 4 * pixel);
  }
  canvas.getContext("2d")?.putImageData(picture, 0, 0);
}

// --- internal ---

const palette = [
  [8, 9, 20],
  [58, 60, 150],
  [214, 96, 70],
  [255, 244, 214],
] as const;

function colourOf(share: number): [number, number, number, number] {
  const place = share * (palette.length - 1);
  const from = palette[Math.floor(place)]!;
  const to = palette[Math.min(palette.length - 1, Math.floor(place) + 1)]!;
  const mix = (channel: 0 | 1 | 2) => from[channel] + (to[channel] - from[channel]) * (place % 1);
  return [mix(0), mix(1), mix(2), 255];
}

async function pixelsOf(address: string): Promise<ImageData> {
  const image = new Image();
  image.src = address;
  await image.decode();
  const { naturalWidth: width, naturalHeight: height } = image;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  if (context === null) throw new Error("This browser has no canvas.");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, width, height);
}
