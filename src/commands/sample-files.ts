/**
 * The files one `sample` writes: their names, what can be checked of them early, and
 * the images one by one as they are ready, so that a stop keeps those that are there.
 */
import { resolve } from "node:path";
import { writeLatents } from "../image/latents.ts";
import { checkImageSize, checkWritable, imageFormatOf, writeImage } from "../image.ts";
import type { GeneratedImage } from "../pipeline/events.ts";
import type { GenerateResult } from "../pipeline/job.ts";
import type { SampleOptions } from "../settings/options.ts";

type FileOptions = Pick<SampleOptions, "outPath" | "latentsPath" | "imageCount">;

/** A image that is on the disk. */
export interface WrittenImage {
  /** As the user wrote it, numbered where there are several. */
  path: string;
  seed: bigint;
}

/** `sample.png` for one image; `sample-1.png`, `sample-2.png` ... for several. */
export function imagePaths(outPath: string, count: number): string[] {
  if (count === 1) return [outPath];
  const numbers = Array.from({ length: count }, (_, index) => index + 1);
  return numbers.map((number) => outPath.replace(/(\.[^./\\]*)?$/, `-${number}$1`));
}

/** Throws "bad-option" for a format there is not, "io" for a file that cannot be written. */
export function checkFiles({ outPath, latentsPath, imageCount }: FileOptions): void {
  imageFormatOf(outPath);
  for (const path of imagePaths(outPath, imageCount)) checkWritable(path);
  if (latentsPath !== undefined) checkWritable(latentsPath);
}

/** Writes images in the order of their names, and notes which and for how long. */
export class ImageWriter {
  readonly written: WrittenImage[] = [];
  /** Spent on files so far, in milliseconds. */
  writeMs = 0;
  private readonly paths: string[];

  /** Throws "bad-option" where the format holds no image of this size (pixels). */
  constructor(
    private readonly options: FileOptions,
    private readonly size: { width: number; height: number },
    private readonly signal: AbortSignal,
  ) {
    this.paths = imagePaths(options.outPath, options.imageCount);
    checkImageSize(options.outPath, size.width, size.height);
  }

  /** Writes the next image and resolves to where. */
  async writeImage({
    seed,
    pixels,
  }: Pick<GeneratedImage, "seed" | "pixels">): Promise<WrittenImage> {
    const path = this.paths[this.written.length] ?? this.options.outPath;
    const { width, height } = this.size;
    await this.timed(writeImage(path, pixels, width, height, this.signal));
    const written = { path, seed };
    this.written.push(written);
    return written;
  }

  /** Writes the latents of all images, where they were asked for. */
  async writeLatents({ latents, latentShape }: GenerateResult): Promise<void> {
    const { latentsPath } = this.options;
    if (latentsPath === undefined || latents === null) return;
    await this.timed(writeLatents(latentsPath, latents, latentShape));
  }

  /** Absolute paths and seeds, as `--json` prints them. */
  toJson(): { path: string; seed: string }[] {
    return this.written.map(({ path, seed }) => ({ path: resolve(path), seed: String(seed) }));
  }

  private async timed(writing: Promise<void>): Promise<void> {
    const startMs = performance.now();
    await writing;
    this.writeMs += performance.now() - startMs;
  }
}
