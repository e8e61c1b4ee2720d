/**
 * Previews: files beside images, and the escape sequences of terminals that show pictures, told
 * apart by their environment and read back as a terminal would.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import sharp from "sharp";
import { PreviewWriter, previewPath } from "../../src/commands/previews.ts";
import { enlarged, reduced, withPalette } from "../../src/image.ts";
import { readAnswer } from "../../src/terminal/ask.ts";
import { createOutput } from "../../src/terminal/output.ts";
import { mayBeAsked, pictureProtocol, placed, pngText } from "../../src/terminal/pictures.ts";
import { sixelText } from "../../src/terminal/sixel.ts";
import { sampled, seedName } from "../support/seed.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-previews-"));
afterAll(() => rmSync(folder, { recursive: true }));

test("terminals by their environment", () => {
  const of = (env: Record<string, string>) => pictureProtocol(env, true);
  expect(of({ TERM: "xterm-kitty" })).toBe("kitty");
  expect(of({ TERM: "xterm-256color", KITTY_WINDOW_ID: "1" })).toBe("kitty");
  expect(of({ TERM: "xterm-ghostty" })).toBe("kitty");
  expect(of({ TERM_PROGRAM: "iTerm.app" })).toBe("iterm");
  expect(of({ TERM_PROGRAM: "WezTerm" })).toBe("iterm");
  expect(of({ TERM: "foot" })).toBe("sixel");
  expect(of({ TERM: "foot-direct" })).toBe("sixel");
  expect(of({ TERM: "xterm", TERM_PROGRAM: "mintty" })).toBe("sixel");
  expect(of({ TERM: "xterm-256color" })).toBeNull();
  expect(of({ TERM: "tmux-256color", TERM_PROGRAM: "iTerm.app" })).toBeNull();
  expect(of({ TERM: "xterm-kitty", TMUX: "/tmp/x" })).toBeNull();
  expect(pictureProtocol({ TERM: "xterm-kitty" }, false)).toBeNull();
});

test("a picture is whole, and the cursor is below it", () => {
  const png = Uint8Array.from({ length: 10_000 }, (_, i) => i % 251);
  const kitty = placed(pngText("kitty", png, 5), 5, false);
  expect(kitty).toStartWith("\n\n\n\n\n\x1b[5A\r\x1b7\x1b_Ga=T,f=100,");
  expect(kitty).toEndWith("\x1b\\\x1b8\x1b[5B");
  const commands = kitty.split("\x1b_G").slice(1);
  const pieces = commands.map((each) => each.split("\x1b\\")[0]!.split(";"));
  expect(pieces.map(([head]) => /m=(\d)/.exec(head!)?.[1])).toEqual(["1", "1", "1", "0"]);
  const data = pieces.map(([, piece]) => piece).join("");
  expect(Buffer.from(data, "base64").equals(png)).toBe(true);
  expect(placed("", 5, true)).toStartWith("\x1b[5A\r");

  const iterm = placed(pngText("iterm", png, 5), 5, true);
  const text = iterm.split(";height=5:")[1]!.split("\x07")[0]!;
  expect(Buffer.from(text, "base64").equals(png)).toBe(true);
});

/** What a terminal would draw of a sixel text: RGB in percent, null where nothing is set. */
function drawSixel(text: string) {
  expect(text).toStartWith("\x1bP");
  expect(text).toEndWith("\x1b\\");
  const [, width, height, data] = /^0;1;0q"1;1;(\d+);(\d+)(.*)$/s.exec(text.slice(2, -2))!;
  const size = { width: Number(width), height: Number(height) };
  const pixels = Array<string | null>(size.width * size.height).fill(null);
  const palette = new Map<string, string>();
  let [colour, x, top, count] = ["", 0, 0, 1];
  for (const [token] of data!.matchAll(/#\d+(;2(;\d+){3})?|!\d+|[?-~]|[$-]/g)) {
    if (token.startsWith("#")) {
      const [number, , ...shares] = token.slice(1).split(";");
      if (shares.length > 0) palette.set(number!, shares.join(" "));
      else colour = palette.get(number!)!;
    } else if (token.startsWith("!")) count = Number(token.slice(1));
    else if (token === "$") x = 0;
    else if (token === "-") [x, top] = [0, top + 6];
    else {
      const bits = token.charCodeAt(0) - 63;
      for (; count > 0; count--, x++) {
        for (let row = 0; row < 6; row++) {
          if ((bits >> row) & 1) pixels[(top + row) * size.width + x] = colour;
        }
      }
      count = 1;
    }
  }
  return { ...size, pixels };
}

function percents(pixels: Uint8Array): string[] {
  const shares = [...pixels].map((level) => Math.round((level * 100) / 255));
  return Array.from({ length: shares.length / 3 }, (_, i) =>
    shares.slice(3 * i, 3 * i + 3).join(" "),
  );
}

describe("sixel", () => {
  test(`images of few colours come out as they are (${seedName})`, () => {
    const images = fc
      .record({ width: fc.integer({ min: 1, max: 40 }), height: fc.integer({ min: 1, max: 20 }) })
      .chain(({ width, height }) => {
        const levels = fc.constantFrom(0, 40, 255);
        const length = { minLength: 3 * width * height, maxLength: 3 * width * height };
        return fc.record({
          ...{ width: fc.constant(width), height: fc.constant(height) },
          pixels: fc.array(levels, length).map((list) => Uint8Array.from(list)),
        });
      });
    for (const image of sampled(images, 40)) {
      const { width, height, pixels } = drawSixel(sixelText(image));
      expect([width, height]).toEqual([image.width, image.height]);
      expect(pixels).toEqual(percents(image.pixels));
    }
  });

  test("images of many colours are near, by a palette of their own or without one", async () => {
    const [width, height] = [64, 64];
    const pixels = Uint8Array.from({ length: 3 * width * height }, (_, i) => {
      const [x, y] = [Math.floor(i / 3) % width, Math.floor(i / 3 / width)];
      return [x * 4, y * 4, (x + y) * 2][i % 3]!;
    });
    const own = await withPalette({ width, height, pixels });
    for (const [image, errorMax] of [
      [own, 12],
      [{ width, height, pixels }, 16],
    ] as const) {
      const drawn = drawSixel(sixelText(image)).pixels;
      const errors = percents(pixels).flatMap((expected, i) => {
        const levels = drawn[i]!.split(" ");
        return expected.split(" ").map((level, c) => Math.abs(Number(level) - Number(levels[c])));
      });
      const mean = errors.reduce((sum, error) => sum + error, 0) / errors.length;
      expect(mean).toBeLessThan(errorMax);
    }
  });

  test("a picture is reduced by means and enlarged by squares", () => {
    const pixels = Uint8Array.from([0, 0, 0, 100, 8, 8, 200, 0, 0, 100, 0, 0]);
    expect([...reduced({ width: 2, height: 2, pixels }, 2).pixels]).toEqual([100, 2, 2]);
    const large = enlarged({ width: 2, height: 2, pixels }, 3);
    expect([large.width, large.height]).toEqual([6, 6]);
    expect(reduced(large, 3).pixels).toEqual(pixels);
  });
});

describe("what terminals answer", () => {
  test.each([
    ["xterm with sixel", "\x1b[6;20;10t\x1b[?64;1;2;4;6;9;15;18;21;22c", true, 20],
    ["foot", "\x1b[6;18;8t\x1b[?62;4;22;28;29c", true, 18],
    ["Windows Terminal", "\x1b[6;20;10t\x1b[?61;4;6;7;14;21;22;23;24;28;32;42c", true, 20],
    ["Konsole", "\x1b[6;17;8t\x1b[?62;1;4c", true, 17],
    ["VTE without sixel", "\x1b[?65;1;9c", false, null],
    ["Alacritty", "\x1b[?6c", false, null],
    ["a VT class of 4 alone", "\x1b[?4c", false, null],
  ])("%s", (_, text, hasSixel, cellHeight) => {
    expect(readAnswer(`typed ahead${text}`)).toEqual({ hasSixel, cellHeight });
    // Until its end has come there is none.
    expect(readAnswer(text.slice(0, -1))).toBeNull();
  });

  test("are not asked of terminals that know no questions", () => {
    expect(mayBeAsked({ TERM: "xterm-256color" })).toBe(true);
    for (const TERM of ["dumb", "linux", "screen.xterm", undefined]) {
      expect(mayBeAsked({ TERM })).toBe(false);
    }
  });

  const module = join(import.meta.dir, "../../src/terminal/ask.ts");
  const script = `
    import { askTerminal } from ${JSON.stringify(module)};
    const limitMs = Number(process.argv[1]);
    const answer = await askTerminal(process.stdin, process.stderr, limitMs);
    console.log("got " + JSON.stringify(answer) + (process.stdin.isRaw ? " raw" : ""));
  `;

  /** Runs the question in a terminal that answers so. */
  async function asked(answer: string, limitMs: number): Promise<string> {
    let text = "";
    const child = Bun.spawn([process.execPath, "-e", script, String(limitMs)], {
      terminal: {
        data(terminal, bytes) {
          const before = text;
          text += Buffer.from(bytes).toString("latin1");
          if (text.includes("\x1b[c") && !before.includes("\x1b[c")) terminal.write(answer);
        },
      },
    });
    await child.exited;
    return /got (.*?)\r?\n/.exec(text)?.[1] ?? text;
  }

  test("arrive through a pseudo terminal, which is left as it was", async () => {
    const answer = "\x1b[6;20;10t\x1b[?64;4c";
    expect(await asked(answer, 30_000)).toBe('{"hasSixel":true,"cellHeight":20}');
  });

  test("that never come are not waited for", async () => {
    expect(await asked("", 50)).toBe("null");
  });
});

test("a file beside each image, no picture without a terminal, one warning for all", async () => {
  expect(previewPath("a.b/house.webp")).toBe("a.b/house-preview.png");
  const lines: string[] = [];
  const target = { write: (text: string) => void lines.push(text), isTerminal: false };
  const quiet = { verbose: false, quiet: false, json: false };
  const output = createOutput(quiet, { ...target, columns: () => 80 });
  const written: string[] = [];
  const stream = { isTTY: false, write: (text: string) => written.push(text) > 0 };
  const paths = [join(folder, "one.webp"), join(folder, "gone", "two.webp")];
  const previews = await PreviewWriter.open(paths, output, "sixel", stream);
  const preview = { type: "preview", jobId: "x", stepIndex: 1, width: 2, height: 1 } as const;
  const pixels = Uint8Array.from([9, 8, 7, 6, 5, 4]);
  for (const index of [0, 1, 1]) await previews.show({ ...preview, index, pixels });
  const levels = await sharp(join(folder, "one-preview.png")).raw().toBuffer();
  expect([...levels]).toEqual([...pixels]);
  expect(existsSync(join(folder, "one.webp"))).toBe(false);
  expect(written).toEqual([]);
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatch(/^warning: Cannot write .*two-preview\.png/);
});
