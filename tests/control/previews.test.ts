/**
 * Previews: files beside images, and the escape sequences of terminals that show pictures, told
 * apart by their environment and read back as a terminal would.
 */
import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { PreviewWriter, previewPath } from "../../src/commands/previews.ts";
import { createOutput } from "../../src/terminal/output.ts";
import { pictureProtocol, pictureText } from "../../src/terminal/pictures.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-previews-"));
afterAll(() => rmSync(folder, { recursive: true }));

test("terminals by their environment", () => {
  const of = (env: Record<string, string>) => pictureProtocol(env, true);
  expect(of({ TERM: "xterm-kitty" })).toBe("kitty");
  expect(of({ TERM: "xterm-256color", KITTY_WINDOW_ID: "1" })).toBe("kitty");
  expect(of({ TERM: "xterm-ghostty" })).toBe("kitty");
  expect(of({ TERM_PROGRAM: "iTerm.app" })).toBe("iterm");
  expect(of({ TERM_PROGRAM: "WezTerm" })).toBe("iterm");
  expect(of({ TERM: "xterm-256color" })).toBeNull();
  expect(of({ TERM: "tmux-256color", TERM_PROGRAM: "iTerm.app" })).toBeNull();
  expect(of({ TERM: "xterm-kitty", TMUX: "/tmp/x" })).toBeNull();
  expect(pictureProtocol({ TERM: "xterm-kitty" }, false)).toBeNull();
});

test("a picture is whole, and the cursor is below it", () => {
  const png = Uint8Array.from({ length: 10_000 }, (_, i) => i % 251);
  const kitty = pictureText("kitty", png, 5, false);
  expect(kitty).toStartWith("\n\n\n\n\n\x1b[5A\r\x1b7\x1b_Ga=T,f=100,");
  expect(kitty).toEndWith("\x1b\\\x1b8\x1b[5B");
  const commands = kitty.split("\x1b_G").slice(1);
  const pieces = commands.map((each) => each.split("\x1b\\")[0]!.split(";"));
  expect(pieces.map(([head]) => /m=(\d)/.exec(head!)?.[1])).toEqual(["1", "1", "1", "0"]);
  const data = pieces.map(([, piece]) => piece).join("");
  expect(Buffer.from(data, "base64").equals(png)).toBe(true);
  expect(pictureText("kitty", png, 5, true)).toStartWith("\x1b[5A\r");

  const iterm = pictureText("iterm", png, 5, true);
  const text = iterm.split(";height=5:")[1]!.split("\x07")[0]!;
  expect(Buffer.from(text, "base64").equals(png)).toBe(true);
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
  const previews = new PreviewWriter(paths, output, stream);
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
