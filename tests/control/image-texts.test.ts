/**
 * Texts in image files: what is written is read back, here and by sharp, and the pixels stay as
 * they are; files that lie about themselves cost neither much memory nor time.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deflateSync } from "node:zlib";
import fc from "fast-check";
import sharp from "sharp";
import { decodeExif, encodeExif } from "../../src/image/exif.ts";
import { readTexts } from "../../src/image/texts.ts";
import { writeImage } from "../../src/image.ts";
import { refusal } from "../support/refusal.ts";
import { seed, seedName } from "../support/seed.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-texts-"));
afterAll(() => rmSync(folder, { recursive: true }));

// Odd sides: WebP and AVIF keep half of them for colours.
const [width, height] = [37, 23];
const pixels = Uint8Array.from({ length: width * height * 3 }, (_, i) => (i * 7) % 256);
const latin = { parameters: "caf\u00e9, (a:1.2)\nSteps: 1, Sampler: Euler", own: '{"a":"\u00e9"}' };
const wide = { parameters: "\u96ea \u{1f98a}\nSteps: 2", own: '{"a":"\u{1f98a}"}' };

describe.each(["png", "jpg", "webp", "avif"])(".%s", (ending) => {
  const plain = join(folder, `plain.${ending}`);
  test.each([
    ["Latin-1", latin],
    ["other letters", wide],
  ])("texts of %s are read back, and the pixels are the same", async (name, texts) => {
    const path = join(folder, `${name}.${ending}`);
    await writeImage(plain, pixels, width, height);
    expect(await writeImage(path, pixels, width, height, { texts })).toBe(true);
    const { chunks, exif, problems } = readTexts(path);
    expect(problems).toEqual([]);
    const found = { chunks: Object.fromEntries(chunks), exif: Object.fromEntries(exif) };
    expect(found).toEqual(
      ending === "png"
        ? { chunks: { parameters: texts.parameters, basedxl: texts.own }, exif: {} }
        : {
            chunks: {},
            exif: { UserComment: texts.parameters, MakerNote: `basedxl\0${texts.own}` },
          },
    );
    const levels = async (file: string) => await sharp(file).raw().toBuffer();
    expect(Buffer.compare(await levels(path), await levels(plain))).toBe(0);
    const metadata = await sharp(path).metadata();
    expect([metadata.width, metadata.height]).toEqual([width, height]);
    // sharp reads every text as UTF-8.
    if (ending === "png" && texts === latin) return;
    if (ending === "png") {
      expect(metadata.comments).toEqual([
        { keyword: "parameters", text: texts.parameters },
        { keyword: "basedxl", text: texts.own },
      ]);
    } else {
      const bytes = Buffer.from(encodeExif(texts));
      const read = metadata.exif!;
      expect(read.subarray(read.length - bytes.length).equals(bytes)).toBe(true);
    }
  });

  test("a file without texts has none", async () => {
    await writeImage(plain, pixels, width, height);
    const { chunks, exif, problems } = readTexts(plain);
    expect([chunks.size, exif.size, problems]).toEqual([0, 0, []]);
  });

  test("files that are cut or changed anywhere are read or refused", async () => {
    const path = join(folder, `whole.${ending}`);
    await writeImage(path, pixels, width, height, { texts: wide });
    const whole = readFileSync(path);
    const damaged = join(folder, `damaged.${ending}`);
    for (let at = 0; at < 400; at++) {
      const bytes = Buffer.from(at % 2 === 0 ? whole : whole.subarray(0, whole.length - at));
      bytes[(at * 31) % bytes.length]! ^= 1 + (at % 255);
      writeFileSync(damaged, bytes);
      try {
        readTexts(damaged);
      } catch (error) {
        expect((error as Error).name).toBe("BasedXLError");
      }
    }
  });
});

test("texts that do not fit into a JPEG are left out", async () => {
  const texts = { ...latin, own: "x".repeat(70_000) };
  const path = join(folder, "long.jpg");
  expect(await writeImage(path, pixels, width, height, { texts })).toBe(false);
  expect(readTexts(path).exif.size).toBe(0);
  const avif = join(folder, "long.avif");
  expect(await writeImage(avif, pixels, width, height, { texts })).toBe(true);
  expect(readTexts(avif).exif.get("MakerNote")).toHaveLength(70_008);
});

test(`any text is read back from EXIF (${seedName})`, () => {
  // A plain letter tells the order of bytes.
  const text = fc.string({ unit: "grapheme" }).map((each) => `${each.replaceAll("\0", "")}a`);
  fc.assert(
    fc.property(text, text, (parameters, own) => {
      const { UserComment, MakerNote } = Object.fromEntries(
        decodeExif(Buffer.from(encodeExif({ parameters, own }))),
      );
      expect([UserComment, MakerNote]).toEqual([parameters, `basedxl\0${own}`]);
    }),
    { seed },
  );
});

describe("PNG", () => {
  function png(...chunks: [type: string, data: Buffer][]): string {
    const parts = chunks.map(([type, data]) => {
      const head = Buffer.alloc(8);
      head.writeUInt32BE(data.length, 0);
      head.write(type, 4, "latin1");
      return Buffer.concat([head, data, Buffer.alloc(4)]);
    });
    const path = join(folder, "made.png");
    const end = Buffer.from("\0\0\0\0IEND\xae\x42\x60\x82", "latin1");
    writeFileSync(path, Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), ...parts, end]));
    return path;
  }

  test("compressed texts", () => {
    const zipped = deflateSync("a text");
    const path = png(
      ["zTXt", Buffer.concat([Buffer.from("one\0\0"), zipped])],
      ["iTXt", Buffer.concat([Buffer.from("two\0\x01\0en\0zwei\0"), zipped])],
    );
    expect(Object.fromEntries(readTexts(path).chunks)).toEqual({ one: "a text", two: "a text" });
  });

  test("a text that would fill the memory, and one that is no zlib", () => {
    const bomb = deflateSync(Buffer.alloc(2 ** 26));
    const { chunks, problems } = readTexts(
      png(
        ["zTXt", Buffer.concat([Buffer.from("bomb\0\0"), bomb])],
        ["zTXt", Buffer.from("bad\0\0no zlib")],
        ["iTXt", Buffer.from("cut\0\0\0")],
        ["tEXt", Buffer.from("good\0still read")],
      ),
    );
    expect(problems).toEqual([
      "its zTXt chunk is larger than 33554432 bytes",
      "its zTXt chunk is damaged",
      "its iTXt chunk is damaged",
    ]);
    expect(Object.fromEntries(chunks)).toEqual({ good: "still read" });
  });
});

test("what is no image, and what is no file", async () => {
  const path = join(folder, "no.png");
  writeFileSync(path, "GIF89a");
  expect(await refusal(() => readTexts(path), "io")).toContain("is no image in a format");
  expect(await refusal(() => readTexts(folder), "io")).toContain("it is not a file");
  expect(await refusal(() => readTexts(join(folder, "none")), "io")).toContain("ENOENT");
});
