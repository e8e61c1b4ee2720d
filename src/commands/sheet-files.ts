/**
 * The sheet of a run's images: where it is written, what is checked before weights load, and the
 * file at the end, also of a run that was stopped.
 */
import {
  checkImageSize,
  checkWritable,
  type ImageTexts,
  imageFormatOf,
  imageSideMax,
  writeImage,
} from "../image.ts";
import { finalSize, type GeneratedImage, type PlannedRequest } from "../pipeline.ts";
import type { SampleOptions } from "../settings/options.ts";
import { reductionOf, Sheet, type SheetPlan } from "../sheets.ts";

export class SheetWriter {
  readonly path: string;
  /** How far images are reduced in it. */
  readonly reduction: number;
  private readonly plan: SheetPlan;
  private sheet: Promise<Sheet> | null = null;
  private texts: ImageTexts | undefined;

  /** Throws "io" where the file cannot be written. */
  constructor(outPath: string, plan: Omit<SheetPlan, "sideMax">) {
    this.path = sheetPath(outPath);
    this.plan = { ...plan, sideMax: imageSideMax(imageFormatOf(this.path)) };
    this.reduction = reductionOf(this.plan);
    checkWritable(this.path);
  }

  /** Puts an image into the sheet; the first one's texts are the sheet's. */
  async place(
    place: readonly [number, number, number],
    image: Pick<GeneratedImage, "width" | "height" | "pixels">,
    texts: ImageTexts | undefined,
  ): Promise<void> {
    this.texts ??= texts;
    this.sheet ??= Sheet.create(this.plan);
    (await this.sheet).place(place, image);
  }

  /** Writes what has been placed, with `more` behind its parameters. False where nothing was. */
  async write(more = ""): Promise<boolean> {
    if (this.sheet === null) return false;
    const { width, height, pixels } = await this.sheet;
    checkImageSize(this.path, width, height);
    const parameters = [this.texts?.parameters, more].filter(Boolean).join(", ");
    const texts = this.texts && { parameters };
    await writeImage(this.path, pixels, width, height, { texts });
    return true;
  }
}

/** The sheet of --grid: images in their order, about as many rows as columns. */
class Grid {
  constructor(
    private readonly writer: SheetWriter,
    private readonly columnCount: number,
  ) {}

  get path(): string {
    return this.writer.path;
  }

  async add(image: GeneratedImage, texts: ImageTexts | undefined): Promise<void> {
    const { index } = image;
    const row = Math.floor(index / this.columnCount);
    await this.writer.place([index % this.columnCount, row, 0], image, texts);
  }

  write(): Promise<boolean> {
    return this.writer.write();
  }
}

/** Captions are the seeds, or the prompts where they differ. Throws as `SheetWriter`. */
export function gridOf({ outPath }: SampleOptions, plan: PlannedRequest): Grid {
  const { width, height } = finalSize(plan);
  const images = plan.batches.flatMap((batch) => batch.images);
  const rowCount = Math.max(1, Math.floor(Math.sqrt(images.length)));
  const columnCount = Math.ceil(images.length / rowCount);
  const differ = new Set(images.map(({ prompt }) => prompt)).size > 1;
  const writer = new SheetWriter(outPath, {
    columns: Array<string>(columnCount).fill(""),
    rows: Array<string>(Math.ceil(images.length / columnCount)).fill(""),
    blocks: [""],
    captions: images.map(({ prompt, seed }) => (differ ? prompt : `seed ${seed}`)),
    cellWidth: width,
    cellHeight: height,
  });
  return new Grid(writer, columnCount);
}

// --- internal ---

/** `house-grid.webp` for `house.webp`. */
function sheetPath(outPath: string): string {
  return outPath.replace(/(\.[^./\\]*)?$/, "-grid$1");
}
