/**
 * Masks as other programs send them, as this one reads them: grey, and white is made anew.
 */
import type { Sharp } from "sharp";
import { loadSharp } from "../../image/read.ts";
import { pixelsMax, sizeOfImage } from "./image-bytes.ts";

interface MaskOptions {
  /** "alpha-or-grey" is the alpha where some of it is transparent, else the image as it is. */
  from: "alpha-or-grey" | "alpha" | "red" | "green" | "blue";
  /** Makes black white. Default false. */
  isInverted?: boolean;
  /** Makes alpha above 128 white and the rest black. Default false. */
  cutsAlpha?: boolean;
}

/**
 * A PNG, or `bytes` as they are; null for what is no image, or too large a one. Rejects with
 * "setup" where sharp cannot be loaded.
 */
export async function maskOf(
  bytes: Uint8Array,
  { from, isInverted = false, cutsAlpha = false }: MaskOptions,
): Promise<Uint8Array | null> {
  const sharp = await loadSharp();
  const open = () => sharp(bytes, { limitInputPixels: pixelsMax, pages: 1 });
  try {
    const isGrey = from === "alpha-or-grey" && (await isOpaque(open()));
    if (isGrey && !isInverted) return bytes;
    const channel = from === "alpha-or-grey" ? "alpha" : from;
    const turned = open().autoOrient();
    const one = isGrey
      ? turned.removeAlpha().toColourspace("b-w")
      : turned.toColourspace("srgb").ensureAlpha().extractChannel(channel);
    const grey = await one.png().toBuffer();
    if (!isInverted && !cutsAlpha) return grey;
    const mask = sharp(grey, { limitInputPixels: pixelsMax });
    if (cutsAlpha && !isGrey) mask.threshold(129);
    if (isInverted) mask.negate();
    return await mask.toColourspace("b-w").png().toBuffer();
  } catch {
    return null;
  }
}

/** A grey PNG, blurred by Gauss functions of these standard deviations in pixels; null likewise. */
export async function blurredMask(
  mask: Uint8Array,
  { across, down }: { across: number; down: number },
): Promise<Uint8Array | null> {
  const sharp = await loadSharp();
  let blurred: Uint8Array = mask;
  try {
    for (const [isAcross, deviation] of [[true, across] as const, [false, down] as const]) {
      if (deviation === 0) continue;
      const image = sharp(blurred, { limitInputPixels: pixelsMax, pages: 1 }).autoOrient();
      const line = image
        .removeAlpha()
        .toColourspace("b-w")
        .convolve(gaussLine(deviation, isAcross));
      blurred = await line.png().toBuffer();
    }
    return blurred;
  } catch {
    return null;
  }
}

/** `image` as a PNG with the alpha of `mask`; null where one cannot be read or sizes differ. */
export async function withAlphaOf(image: Uint8Array, mask: Uint8Array): Promise<Uint8Array | null> {
  const sharp = await loadSharp();
  const open = (bytes: Uint8Array) =>
    sharp(bytes, { limitInputPixels: pixelsMax, pages: 1 }).autoOrient().toColourspace("srgb");
  const [size, sizeOfMask] = [await sizeOfImage(image), await sizeOfImage(mask)];
  if (size?.width !== sizeOfMask?.width || size?.height !== sizeOfMask?.height) return null;
  try {
    const alpha = await open(mask).ensureAlpha().extractChannel("alpha").png().toBuffer();
    // By itself: an alpha that is removed and one that is joined would be the same to sharp.
    const colours = await open(image).removeAlpha().png().toBuffer();
    return await sharp(colours).joinChannel(alpha).png().toBuffer();
  } catch {
    return null;
  }
}

// --- internal ---

/** Beyond it the function is nothing; A1111 goes as far. */
const reach = 2.5;

/** A line of the function in the middle of a kernel, which has three lines at least. */
function gaussLine(deviation: number, isAcross: boolean) {
  const half = Math.max(1, Math.min(500, Math.round(reach * deviation)));
  const count = 2 * half + 1;
  // libvips takes whole numbers.
  const line = Array.from({ length: count }, (_, at) => {
    return Math.round(1e4 * Math.exp(-((at - half) ** 2) / (2 * deviation ** 2)));
  });
  const scale = line.reduce((sum, each) => sum + each, 0);
  const none = new Array<number>(count).fill(0);
  const kernel = isAcross ? [none, line, none].flat() : line.flatMap((each) => [0, each, 0]);
  return { width: isAcross ? count : 3, height: isAcross ? 3 : count, kernel, scale };
}

/** Rejects for what cannot be decoded. `stats()`, of all colours, takes ten times as long. */
async function isOpaque(image: Sharp): Promise<boolean> {
  const { hasAlpha } = await image.metadata();
  const channel = await image
    .extractChannel(hasAlpha ? "alpha" : 0)
    .raw()
    .toBuffer();
  return !hasAlpha || channel.every((value) => value === 255);
}
