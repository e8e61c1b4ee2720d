/**
 * Where the images of jobs go: files named by their job and their place in it, so that the same
 * image has the same name, whoever makes it. A file is there whole or not at all.
 */
import { type ImageFormat, imageFormats, type Size } from "../image/encoder.ts";
import type { JobImage } from "./jobs/types.ts";

export abstract class ImageStore {
  /** Writes an image of a job; resolves to its file. Rejects with "io", "cancelled". */
  async write(
    jobId: string,
    image: Pick<JobImage, "index" | "seed" | "width" | "height">,
    { bytes, format }: { bytes: Uint8Array; format: ImageFormat },
    signal: AbortSignal,
  ): Promise<JobImage> {
    const file = imageNameOf(jobId, image.index, format);
    const type = `image/${format}`;
    await this.put(file, bytes, type, signal);
    return { ...image, file, bytes: bytes.length, type };
  }

  /** The image of a job that was written but not noted; else null. */
  async find(jobId: string, index: number, seed: bigint): Promise<JobImage | null> {
    for (const format of imageFormats) {
      const file = imageNameOf(jobId, index, format);
      const found = await this.look(file);
      if (found === null) continue;
      const { width, height } = found.size;
      const type = `image/${format}`;
      return { index, seed: String(seed), width, height, file, bytes: found.bytes, type };
    }
    return null;
  }

  protected abstract put(
    file: string,
    bytes: Uint8Array,
    type: string,
    signal: AbortSignal,
  ): Promise<void>;

  /** null for what is not there, or is no image. */
  protected abstract look(file: string): Promise<{ bytes: number; size: Size } | null>;
}

/** Whether a job's image has this name, in some format. */
export function isNameOf({ index, file }: Pick<JobImage, "index" | "file">, jobId: string) {
  return imageFormats.some((format) => imageNameOf(jobId, index, format) === file);
}

// --- internal ---

function imageNameOf(jobId: string, index: number, format: ImageFormat): string {
  return `${jobId}-${index}.${format === "jpeg" ? "jpg" : format}`;
}
