/**
 * Images as sixel: a palette, then bands of six rows, each colour of a band one line over the
 * others. Source: https://vt100.net/docs/vt3xx-gp/chapter14.html
 */

interface Image {
  width: number;
  height: number;
  /** RGB, row by row. */
  pixels: Uint8Array;
}

/** An image of at most 256 colours; those of others are reduced to 216 (six levels each). */
export function sixelText({ width, height, pixels }: Image): string {
  const { palette, indices } = indexed(pixels);
  const colours = palette.map((colour, index) => {
    const shares = [colour >> 16, (colour >> 8) & 255, colour & 255].map((level) =>
      Math.round((level * 100) / 255),
    );
    return `#${index};2;${shares.join(";")}`;
  });
  const bands: string[] = [];
  for (let top = 0; top < height; top += 6) bands.push(bandOf(indices, width, height, top));
  return `\x1bP0;1;0q"1;1;${width};${height}${colours.join("")}${bands.join("-")}\x1b\\`;
}

// --- internal ---

const paletteMax = 256;

function indexed(pixels: Uint8Array): { palette: number[]; indices: Uint8Array } {
  const exact = indexedBy(pixels, (level) => level);
  return exact ?? indexedBy(pixels, (level) => Math.round(level / 51) * 51)!;
}

/** null for too many colours. */
function indexedBy(pixels: Uint8Array, rounded: (level: number) => number) {
  const numbers = new Map<number, number>();
  const indices = new Uint8Array(pixels.length / 3);
  for (let i = 0; i < indices.length; i++) {
    const [red, green, blue] = [0, 1, 2].map((c) => rounded(pixels[3 * i + c]!));
    const colour = (red! << 16) | (green! << 8) | blue!;
    let index = numbers.get(colour);
    if (index === undefined) {
      index = numbers.size;
      if (index === paletteMax) return null;
      numbers.set(colour, index);
    }
    indices[i] = index;
  }
  return { palette: [...numbers.keys()], indices };
}

function bandOf(indices: Uint8Array, width: number, height: number, top: number): string {
  const lines = new Map<number, Uint8Array>();
  for (let row = 0; row < Math.min(6, height - top); row++) {
    for (let x = 0; x < width; x++) {
      const index = indices[(top + row) * width + x]!;
      let line = lines.get(index);
      if (line === undefined) {
        line = new Uint8Array(width);
        lines.set(index, line);
      }
      line[x]! |= 1 << row;
    }
  }
  return [...lines].map(([index, line]) => `#${index}${runsOf(line)}`).join("$");
}

/** `!12~` for twelve equal columns; nothing for empty ones at the end. */
function runsOf(line: Uint8Array): string {
  let text = "";
  for (let x = 0; x < line.length; ) {
    let end = x + 1;
    while (end < line.length && line[end] === line[x]) end += 1;
    const letter = String.fromCharCode(63 + line[x]!);
    const count = end - x;
    if (end < line.length || line[x] !== 0) {
      text += count > 3 ? `!${count}${letter}` : letter.repeat(count);
    }
    x = end;
  }
  return text;
}
