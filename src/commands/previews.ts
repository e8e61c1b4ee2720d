/**
 * Previews of images while they are denoised: a small PNG file beside each image, and a picture in
 * terminals that show pictures.
 */
import { BasedXLError } from "../errors.ts";
import { encodePng, enlarged, type Pixels, reduced, withPalette, writeImage } from "../image.ts";
import type { PreviewEvent } from "../pipeline.ts";
import { askTerminal } from "../terminal/ask.ts";
import type { Output } from "../terminal/output.ts";
import {
  mayBeAsked,
  type PictureProtocol,
  pictureProtocol,
  placed,
  pngText,
} from "../terminal/pictures.ts";
import { sixelText } from "../terminal/sixel.ts";

/** How the terminal shows pictures. */
interface Screen {
  protocol: PictureProtocol;
  /** Pixels of a cell. */
  cellHeight: number;
}

type Target = Pick<NodeJS.WriteStream, "isTTY" | "write">;

export class PreviewWriter {
  private hasWarned = false;
  /** The image that a picture stands for; null where lines were printed since. */
  private shownIndex: number | null = null;
  private shownStep = -1;

  private constructor(
    private readonly paths: readonly string[],
    private readonly output: Output,
    private readonly screen: Screen | null,
    private readonly target: Target,
  ) {}

  /** `paths` are those of the images; asks the terminal where its name does not say what it is. */
  static async open(
    paths: readonly string[],
    output: Output,
    wanted: PictureProtocol | "auto" | "none",
    target: Target = process.stderr,
  ): Promise<PreviewWriter> {
    const isTerminal = target.isTTY === true && output.showsProgress;
    const screen = isTerminal && wanted !== "none" ? await screenOf(wanted, target) : null;
    return new PreviewWriter(paths, output, screen, target);
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
    if (this.screen !== null) await this.draw(preview, this.screen);
  }

  /** Lines are printed: the next picture needs a place of its own. */
  endImage(): void {
    this.shownIndex = null;
    this.shownStep = -1;
  }

  // --- internal ---

  private async draw({ index, stepIndex, ...image }: PreviewEvent, screen: Screen): Promise<void> {
    if (stepIndex === this.shownStep) return;
    const picture = await pictureOf(image, screen);
    this.output.progress.clear();
    this.target.write(placed(picture, pictureRows, this.shownIndex === index));
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
/** Of cells that nobody told: small enough for all, since a picture must not be taller. */
const cellHeightUnknown = 12;
/** More pixels take time on a slow connection, and are not seen. */
const pictureHeightMax = 512;

async function screenOf(wanted: PictureProtocol | "auto", target: Target): Promise<Screen | null> {
  const named = wanted === "auto" ? pictureProtocol(process.env, true) : wanted;
  if (named === "kitty" || named === "iterm") return { protocol: named, cellHeight: 0 };
  const answer = mayBeAsked(process.env) ? await askTerminal(process.stdin, target) : null;
  if (named === null && answer?.hasSixel !== true) return null;
  return { protocol: "sixel", cellHeight: answer?.cellHeight ?? cellHeightUnknown };
}

async function pictureOf(image: Pixels, { protocol, cellHeight }: Screen): Promise<string> {
  const heightMax = protocol === "sixel" ? pictureRows * cellHeight : pictureHeightMax;
  const small = reduced(image, Math.ceil(image.height / heightMax));
  if (protocol === "sixel") {
    const few = await withPalette(small);
    // Sixel has the size that it has; the other protocols scale pictures to their lines.
    return sixelText(enlarged(few, Math.max(1, Math.floor(heightMax / few.height))));
  }
  return pngText(protocol, await encodePng(small.pixels, small.width, small.height), pictureRows);
}
