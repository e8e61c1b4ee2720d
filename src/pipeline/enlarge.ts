/**
 * Enlarges an image to a size by an upscaler, as A1111 does: as often as that needs, three times at
 * most, then by lanczos to the size.
 */
import type { Size } from "../image/encoder.ts";
import type { RawImage } from "../image/read.ts";
import { resized } from "../image/transform.ts";
import type { UpscalerNetwork } from "../networks/network.ts";
import type { ImageHooks, Session } from "./session.ts";

/** Pixels of a side of a tile. */
const tileSizeDefault = 256;

const timesMax = 3;

interface EnlargeOptions extends ImageHooks {
  network: UpscalerNetwork;
  tileSize?: number | undefined;
}

/** RGB. Rejects with "cancelled", "no-memory", "not-finite", "bad-weights". */
export async function enlarged(
  session: Pick<Session, "upscale">,
  image: RawImage,
  size: Size,
  { network, tileSize = tileSizeDefault, ...hooks }: EnlargeOptions,
): Promise<RawImage> {
  let result = image;
  for (let times = 0; times < timesMax; times++) {
    const isLarge = result.width >= size.width && result.height >= size.height;
    // One that does not enlarge is for what it does to the image.
    if (times > 0 && (isLarge || network.scale === 1)) break;
    result = (await session.upscale({ image: result, network, tileSize }, hooks)).image;
  }
  return await resized(result, size, "stretch");
}
