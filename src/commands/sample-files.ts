/**
 * The files that one `sample` writes: their names, what can be checked of them before weights load,
 * and the images one by one as they are ready, so that a stop keeps those that are there.
 */
import assert from "node:assert/strict";
import { resolve } from "node:path";
import { writeLatents } from "../image/latents.ts";
import {
  checkEncoder,
  checkImageSize,
  checkWritable,
  type ImageTexts,
  writeImage,
} from "../image.ts";
import type { GeneratedImage, GenerateResult } from "../pipeline.ts";
import type { SampleOptions } from "../settings/options.ts";

type FileOptions = Pick<SampleOptions, "outPath" | "latentsPath" | "imageCount">;

/** An image that is on the disk. */
interface WrittenImage {
  /** As the user wrote it, numbered where there are several. */
  path: string;
  seed: bigint;
  /** False where texts were given and do not fit into the format. */
  hasTexts: boolean;
}

/** `sample.png` for one image; `sample-1.png`, `sample-2.png` ... for several. */
export function imagePaths(outPath: string, count: number): string[] {
  if (count === 1) return [outPath];
  const numbers = Array.from({ length: count }, (_, index) => index + 1);
  return numbers.map((number) => outPath.replace(/(\.[^./\\]*)?$/, `-${number}$1`));
}

/** Writes images in the order of their names, and notes which and for how long. */
export class ImageWriter {
  readonly written: WrittenImage[] = [];
  /** Spent on files so far, in milliseconds. */
  writeMs = 0;

  private constructor(
    readonly paths: readonly string[],
    private readonly latentsPath: string | undefined,
    /** What the user should know of the encoder, or null. */
    readonly warning: string | null,
  ) {}

  /**
   * Checks every file without touching it. Throws "bad-option" for a format that there is not or
   * that holds no image of `size` (pixels), "io" for a file that cannot be written, "setup" for a
   * format that cannot be encoded on this machine.
   */
  static async open(
    { outPath, latentsPath, imageCount }: FileOptions,
    size: { width: number; height: number },
  ): Promise<ImageWriter> {
    checkImageSize(outPath, size.width, size.height);
    const paths = imagePaths(outPath, imageCount);
    for (const path of paths) checkWritable(path);
    if (latentsPath !== undefined) checkWritable(latentsPath);
    return new ImageWriter(paths, latentsPath, await checkEncoder(outPath));
  }

  /** Writes the next image, or that of `index`, and resolves to where. */
  async writeImage(
    image: Omit<GeneratedImage, "index" | "origin">,
    signal: AbortSignal,
    texts?: ImageTexts,
    index = this.written.length,
  ): Promise<WrittenImage> {
    const { seed, width, height, pixels } = image;
    const path = this.paths[index];
    assert(path, `image ${index + 1} of ${this.paths.length}`);
    const hasTexts = await this.timed(writeImage(path, pixels, width, height, { signal, texts }));
    const written: WrittenImage = { path, seed, hasTexts };
    this.written.push(written);
    return written;
  }

  /** Writes the latents of all images, where they were asked for. */
  async writeLatents({ latents, latentShape }: GenerateResult): Promise<void> {
    const { latentsPath } = this;
    if (latentsPath === undefined || latents === null) return;
    await this.timed(writeLatents(latentsPath, latents, latentShape));
  }

  /** Absolute paths and seeds, as `--json` prints them. */
  toJson(): { path: string; seed: string }[] {
    return this.written.map(({ path, seed }) => ({ path: resolve(path), seed: String(seed) }));
  }

  private async timed<T>(writing: Promise<T>): Promise<T> {
    const startMs = performance.now();
    const result = await writing;
    this.writeMs += performance.now() - startMs;
    return result;
  }
}
