/**
 * Enlarges an image that a program has, by an upscaler that it names.
 */
import { badOption } from "../errors.ts";
import type { Size } from "../image/encoder.ts";
import { type ImageSource, readWithAlpha } from "../image/read.ts";
import { resized } from "../image/transform.ts";
import type { UpscalerNetwork } from "../networks/network.ts";
import { openUpscaler } from "../networks/upscaler.ts";
import { enlarged } from "./enlarge.ts";
import type { Progress } from "./progress.ts";
import type { RequestFiles } from "./request-files.ts";
import type { Session } from "./session.ts";

export interface UpscaleOptions {
  /** A .safetensors file, or a name in the folders of models. */
  upscaler: string;
  /** Default: the upscaler's own. */
  scale?: number | undefined;
  /** In the place of `scale`. */
  size?: Size | undefined;
  /** Pixels of a side of a tile, of the image. Default: 256. */
  tileSize?: number | undefined;
  /** Called while tiles are enlarged, and awaited; those of the first rank are counted. */
  onProgress?: ((progress: Progress) => void | Promise<void>) | undefined;
  /** Rejects with "cancelled". */
  signal?: AbortSignal | undefined;
}

export interface UpscaledImage {
  width: number;
  height: number;
  /** RGB bytes, height × width × 3. */
  pixels: Uint8Array;
  /** How opaque each pixel is; null where all are. */
  alpha: Uint8Array | null;
}

/** What `value` names. Throws "bad-model" and "bad-weights". */
export function upscalerOf(value: string, files: RequestFiles): UpscalerNetwork {
  return openUpscaler(files.find("upscaler", value));
}

/** Transparency is enlarged by lanczos beside the colours. */
export async function upscaleImage(
  session: Pick<Session, "upscale">,
  source: ImageSource,
  network: UpscalerNetwork,
  { scale = network.scale, size: wanted, ...options }: Omit<UpscaleOptions, "upscaler">,
): Promise<UpscaledImage> {
  const { image, alpha } = await readWithAlpha(source, "The image");
  const sideOf = (side: number) => Math.max(1, Math.round(side * scale));
  const size = wanted ?? { width: sideOf(image.width), height: sideOf(image.height) };
  if (size.width * size.height > pixelCountMax) {
    throw badOption(
      `${image.width}x${image.height} enlarged is ${size.width}x${size.height}, \
more than ${pixelCountMax} pixels.`,
    );
  }
  const result = await enlarged(session, image, size, { network, ...options });
  const opacity = alpha && (await resized(alpha, size, "stretch"));
  return { ...result, alpha: opacity?.pixels ?? null };
}

// --- internal ---

/** 16384 x 16384. */
const pixelCountMax = 2 ** 28;
