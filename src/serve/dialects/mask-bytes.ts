/**
 * Masks as other programs send them, as this one reads them: grey, and white is made anew.
 */
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
    if (from === "alpha-or-grey" && (await open().stats()).isOpaque) return bytes;
    const channel = from === "alpha-or-grey" ? "alpha" : from;
    const turned = open().autoOrient().toColourspace("srgb").ensureAlpha();
    const grey = await turned.extractChannel(channel).png().toBuffer();
    if (!isInverted && !cutsAlpha) return grey;
    const mask = sharp(grey, { limitInputPixels: pixelsMax });
    if (cutsAlpha) mask.threshold(129);
    if (isInverted) mask.negate();
    return await mask.toColourspace("b-w").png().toBuffer();
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
