/**
 * Previews of images while they are denoised: a small PNG file beside each image, and a picture in
 * terminals that show pictures.
 */
import { BasedXLError } from "../errors.ts";
import { encodePng, writeImage } from "../image.ts";
import type { PreviewEvent } from "../pipeline.ts";
import type { Output } from "../terminal/output.ts";
import { type PictureProtocol, pictureProtocol, pictureText } from "../terminal/pictures.ts";

export class PreviewWriter {
  private readonly protocol: PictureProtocol | null;
  private hasWarned = false;
  /** The image that a picture stands for; null where lines were printed since. */
  private shownIndex: number | null = null;
  private shownStep = -1;

  /** `paths` are those of the images. */
  constructor(
    private readonly paths: readonly string[],
    private readonly output: Output,
    private readonly target: Pick<NodeJS.WriteStream, "isTTY" | "write"> = process.stderr,
  ) {
    const isTerminal = target.isTTY === true && output.showsProgress;
    this.protocol = pictureProtocol(process.env, isTerminal);
  }

  /** Writes the file, and shows the first image of a batch. */
  async show(preview: PreviewEvent): Promise<void> {
    const { index, width, height, pixels } = preview;
    const path = this.paths[index];
    if (path === undefined) return;
    try {
      await writeImage(previewPath(path), pixels, width, height);
    } catch (error) {
      // An image is worth more than its preview.
      if (!(error instanceof BasedXLError)) throw error;
      if (!this.hasWarned) this.output.log.warn(error.message);
      this.hasWarned = true;
    }
    if (this.protocol !== null) await this.draw(preview, this.protocol);
  }

  /** Lines are printed: the next picture needs a place of its own. */
  endImage(): void {
    this.shownIndex = null;
    this.shownStep = -1;
  }

  // --- internal ---

  private async draw(
    { index, stepIndex, width, height, pixels }: PreviewEvent,
    protocol: PictureProtocol,
  ): Promise<void> {
    if (stepIndex === this.shownStep) return;
    const png = await encodePng(pixels, width, height);
    this.output.progress.clear();
    this.target.write(pictureText(protocol, png, pictureRows, this.shownIndex === index));
    this.shownIndex = index;
    this.shownStep = stepIndex;
  }
}

/** `house-preview.png` for `house.webp`. */
export function previewPath(path: string): string {
  return path.replace(/(\.[^./\\]*)?$/, "-preview.png");
}

// --- internal ---

const pictureRows = 12;
