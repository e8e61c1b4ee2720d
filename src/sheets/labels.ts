/**
 * Texts as grey pixels: by sharp where the machine has fonts, else of dots (`font.ts`). A machine
 * without fonts would draw the same box for every letter, which is how they are told apart.
 */
import { importSharp } from "../image/sharp.ts";
import { dotOf, glyphHeight, glyphWidth } from "./font.ts";

/** 0 for paper to 255 for ink, row by row. */
export interface Label {
  width: number;
  height: number;
  ink: Uint8Array;
}

/** Draws a text in lines of at most `widthMax` pixels, `heightMax` high in all. */
export type DrawLabel = (
  text: string,
  size: number,
  widthMax: number,
  heightMax: number,
) => Promise<Label>;

/** How this machine draws labels. */
export async function labelPainter(): Promise<DrawLabel> {
  try {
    const narrow = await drawByFont("i", 24, 200, 200);
    const wide = await drawByFont("W", 24, 200, 200);
    if (narrow.ink.some((value) => value > 0) && narrow.width < wide.width) return drawByFont;
  } catch {
    // sharp cannot be loaded, or has no text.
  }
  return async (text, size, widthMax, heightMax) => drawDots(text, size, widthMax, heightMax);
}

/** Letters of dots, `size` pixels from line to line at most. */
export function drawDots(text: string, size: number, widthMax: number, heightMax: number): Label {
  const scale = Math.max(1, Math.round(size / 12));
  const advance = (glyphWidth + 1) * scale;
  const lineHeight = (glyphHeight + 2) * scale;
  const perLine = Math.max(1, Math.floor(widthMax / advance));
  const lineCount = Math.max(1, Math.floor(heightMax / lineHeight));
  const lines = linesOf(text, perLine).slice(0, lineCount);
  const width = Math.max(1, Math.min(widthMax, advance * Math.max(...lines.map((l) => l.length))));
  const height = lineHeight * lines.length;
  const ink = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    const row = Math.floor((y % lineHeight) / scale);
    const line = lines[Math.floor(y / lineHeight)]!;
    if (row >= glyphHeight) continue;
    for (let x = 0; x < width; x++) {
      const column = Math.floor((x % advance) / scale);
      const character = line[Math.floor(x / advance)];
      if (character === undefined || column >= glyphWidth) continue;
      if (dotOf(character, column, row)) ink[y * width + x] = 255;
    }
  }
  return { width, height, ink };
}

// --- internal ---

async function drawByFont(
  text: string,
  size: number,
  widthMax: number,
  heightMax: number,
): Promise<Label> {
  const sharp = await importSharp();
  const marked = text.replace(/[&<>]/g, (letter) => `&#${letter.charCodeAt(0)};`);
  const drawn = sharp({
    text: {
      ...{ text: marked, font: `sans ${size}`, dpi: 72, width: widthMax },
      ...({ wrap: "word-char", align: "centre" } as const),
    },
  });
  const { data, info } = await drawn.raw().toBuffer({ resolveWithObject: true });
  const width = Math.min(info.width, widthMax);
  const height = Math.min(info.height, heightMax);
  const ink = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      ink[y * width + x] = data[(y * info.width + x) * info.channels]!;
    }
  }
  return { width, height, ink };
}

/** Broken at spaces where there are some. */
function linesOf(text: string, perLine: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(/\s+/)) {
    if (line !== "" && line.length + 1 + word.length <= perLine) {
      line += ` ${word}`;
      continue;
    }
    if (line !== "") lines.push(line);
    line = word;
    while (line.length > perLine) {
      lines.push(line.slice(0, perLine));
      line = line.slice(perLine);
    }
  }
  return [...lines, line];
}
