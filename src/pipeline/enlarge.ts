/**
 * Enlarges an image to a size by an upscaler, as A1111 does: as often as that needs, three times at
 * most, then by lanczos to the size.
 */
import type { Size } from "../image/encoder.ts";
import type { RawImage } from "../image/read.ts";
import { resized } from "../image/transform.ts";
import type { UpscalerNetwork } from "../networks/network.ts";
import { enlargements, tileSizeOf } from "./enlargements.ts";
import type { ImageHooks, Session } from "./session.ts";

interface EnlargeOptions extends ImageHooks {
  network: UpscalerNetwork;
  tileSize?: number | undefined;
}

/** RGB. Rejects with "cancelled", "no-memory", "not-finite", "bad-weights". */
export async function enlarged(
  session: Pick<Session, "upscale">,
  image: RawImage,
  size: Size,
  { network, tileSize: given, ...hooks }: EnlargeOptions,
): Promise<RawImage> {
  const tileSize = tileSizeOf(given);
  let result = image;
  for (const _ of enlargements(image, size, network)) {
    result = (await session.upscale({ image: result, network, tileSize }, hooks)).image;
  }
  return await resized(result, size, "stretch");
}
