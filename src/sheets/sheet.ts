/**
 * A sheet of images: rows and columns with labels, one block of them or several. It holds the
 * pixels of the sheet alone, in which images are placed as they come; they are reduced by a whole
 * factor where the sheet would be too large.
 */
import { type Pixels, reduceRow } from "../image.ts";
import { type DrawLabel, type Label, labelPainter } from "./labels.ts";

export interface SheetPlan {
  /** Labels above the columns and beside the rows; "" for none. */
  columns: readonly string[];
  rows: readonly string[];
  /** Labels above blocks; at least one. They are side by side where that is less tall. */
  blocks: readonly string[];
  /** Labels below each image, in the order of the sheet; absent for none. */
  captions?: readonly string[];
  /** The largest image in pixels. */
  cellWidth: number;
  cellHeight: number;
  /** Of the file's format. */
  sideMax: number;
}

interface Frame {
  left: number;
  top: number;
  width: number;
  height: number;
  /** Of captions. */
  caption: number;
}

/** Of a sheet: 300 MB of RGB. */
const pixelCountMax = 100_000_000;
const margin = 8;
const paper = 255;

/** How far images are reduced: 1 where they keep their size. */
export function reductionOf(plan: SheetPlan): number {
  const { columns, rows, cellWidth, cellHeight, sideMax } = plan;
  const { across, down } = blocksOf(plan);
  const width = columns.length * across * cellWidth;
  const height = rows.length * down * cellHeight;
  // Labels and margins take a tenth at most.
  const bySide = (1.1 * Math.max(width, height)) / sideMax;
  return Math.max(
    1,
    Math.ceil(bySide),
    Math.ceil(Math.sqrt((1.1 * width * height) / pixelCountMax)),
  );
}

export class Sheet {
  readonly width: number;
  readonly height: number;
  readonly pixels: Uint8Array;
  private readonly isAcross: boolean;

  private constructor(
    plan: SheetPlan,
    private readonly reduction: number,
    private readonly box: { width: number; height: number },
    /** Where the first cell of a block begins, and the block's size. */
    private readonly frame: Frame,
  ) {
    const { columns, rows, blocks } = plan;
    const { across, down } = blocksOf(plan);
    this.isAcross = across > 1;
    this.width = across * frame.width + margin;
    this.height = down * frame.height + margin;
    this.pixels = new Uint8Array(this.width * this.height * 3).fill(paper);
    // A sheet that stops early has its cells in grey.
    for (const z of blocks.keys()) {
      for (const y of rows.keys()) for (const x of columns.keys()) this.blank(x, y, z);
    }
  }

  /** Draws the labels and leaves room for the images. */
  static async create(plan: SheetPlan, reduction = reductionOf(plan)): Promise<Sheet> {
    const draw = await labelPainter();
    const width = Math.ceil(plan.cellWidth / reduction);
    const height = Math.ceil(plan.cellHeight / reduction);
    const size = Math.min(44, Math.max(13, Math.round(Math.min(width, height) / 18)));
    const all = (texts: readonly string[], widthMax: number, lines = 3) =>
      Promise.all(texts.map((text) => label(draw, text, size, widthMax, lines)));
    const columns = await all(plan.columns, width);
    const rows = await all(plan.rows, Math.max(6 * size, Math.round(width / 2)), 8);
    const blocks = await all(plan.blocks, plan.columns.length * width);
    const captions = await all(plan.captions ?? [], width);
    const rowLabelWidth = widest(rows);
    const frame = {
      left: margin + (rowLabelWidth > 0 ? rowLabelWidth + margin : 0),
      top: margin + highest(blocks) + highest(columns),
      caption: highest(captions),
      ...{ width: 0, height: 0 },
    };
    frame.width = frame.left - margin + plan.columns.length * (width + margin);
    frame.height = frame.top - margin + plan.rows.length * (height + frame.caption + margin);
    // Long labels of small images take more than was reckoned.
    const { across, down } = blocksOf(plan);
    const side = Math.max(across * frame.width, down * frame.height) + margin;
    if (side > plan.sideMax && reduction < Math.min(plan.cellWidth, plan.cellHeight)) {
      return await Sheet.create(plan, reduction + 1);
    }
    const sheet = new Sheet(plan, reduction, { width, height }, frame);
    sheet.drawLabels(columns, rows, blocks, captions);
    return sheet;
  }

  /** Puts an image into its cell, in the middle where it is smaller. */
  place([x, y, z]: readonly [number, number, number], image: Pixels): void {
    const { reduction: factor, box } = this;
    const width = Math.floor(image.width / factor);
    const height = Math.floor(image.height / factor);
    const corner = this.cornerOf(x, y, z);
    const left = corner.left + Math.floor((box.width - width) / 2);
    const top = corner.top + Math.floor((box.height - height) / 2);
    for (let row = 0; row < height; row++) {
      const at = ((top + row) * this.width + left) * 3;
      if (factor === 1) {
        this.pixels.set(image.pixels.subarray(row * width * 3, (row + 1) * width * 3), at);
      } else {
        reduceRow(image, row, factor, this.pixels.subarray(at, at + width * 3));
      }
    }
  }

  // --- internal ---

  private cornerOf(x: number, y: number, z: number): { left: number; top: number } {
    const { left, top, caption } = this.frame;
    const block = this.blockAt(z);
    return {
      left: block.left + left + x * (this.box.width + margin),
      top: block.top + top + y * (this.box.height + caption + margin),
    };
  }

  private blockAt(z: number): { left: number; top: number } {
    const { width, height } = this.frame;
    return this.isAcross ? { left: z * width, top: 0 } : { left: 0, top: z * height };
  }

  private blank(x: number, y: number, z: number): void {
    const { left, top } = this.cornerOf(x, y, z);
    for (let row = 0; row < this.box.height; row++) {
      const at = ((top + row) * this.width + left) * 3;
      this.pixels.fill(232, at, at + this.box.width * 3);
    }
  }

  private drawLabels(
    columns: readonly Label[],
    rows: readonly Label[],
    blocks: readonly Label[],
    captions: readonly Label[],
  ): void {
    const { box, frame } = this;
    const columnsTop = margin + highest(blocks);
    for (const [z, block] of blocks.entries()) {
      const { left: blockLeft, top } = this.blockAt(z);
      this.draw(block, blockLeft + frame.left, top + margin);
      for (const [x, each] of columns.entries()) {
        const { left } = this.cornerOf(x, 0, z);
        const lower = highest(columns) - each.height;
        this.draw(each, left + Math.floor((box.width - each.width) / 2), top + columnsTop + lower);
      }
      for (const [y, each] of rows.entries()) {
        const corner = this.cornerOf(0, y, z);
        const middle = Math.floor((box.height - each.height) / 2);
        this.draw(each, corner.left - margin - each.width, corner.top + Math.max(0, middle));
      }
    }
    for (const [index, each] of captions.entries()) {
      const [x, y] = [index % columns.length, Math.floor(index / columns.length)];
      const { left, top } = this.cornerOf(x, y, 0);
      this.draw(each, left + Math.floor((box.width - each.width) / 2), top + box.height);
    }
  }

  private draw({ width, height, ink }: Label, left: number, top: number): void {
    for (let y = 0; y < height && top + y < this.height; y++) {
      for (let x = 0; x < width && left + x < this.width; x++) {
        const level = paper - ink[y * width + x]!;
        const at = ((top + y) * this.width + left + x) * 3;
        if (level < paper) this.pixels.fill(level, at, at + 3);
      }
    }
  }
}

// --- internal ---

/** Blocks beside and below each other: the nearest to a square. */
function blocksOf({ columns, rows, blocks, cellWidth, cellHeight }: SheetPlan) {
  const isWide = columns.length * cellWidth > rows.length * cellHeight;
  const count = blocks.length;
  return isWide ? { across: 1, down: count } : { across: count, down: 1 };
}

/** With room above and below; nothing for no text. */
async function label(
  draw: DrawLabel,
  text: string,
  size: number,
  widthMax: number,
  lineCount: number,
): Promise<Label> {
  if (text.trim() === "") return { width: 0, height: 0, ink: new Uint8Array() };
  const room = Math.round(size / 3);
  const drawn = await draw(text, size, widthMax, Math.round(1.4 * size * lineCount));
  const height = drawn.height + 2 * room;
  const ink = new Uint8Array(drawn.width * height);
  ink.set(drawn.ink, drawn.width * room);
  return { width: drawn.width, height, ink };
}

function widest(labels: readonly Label[]): number {
  return Math.max(0, ...labels.map(({ width }) => width));
}

function highest(labels: readonly Label[]): number {
  return Math.max(0, ...labels.map(({ height }) => height));
}
