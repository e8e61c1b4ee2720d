/**
 * Images to start from: every format and kind of pixels as RGB, sizes and areas, and one sentence
 * for each that cannot be used.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { type RawImage, readImage } from "../../src/image/read.ts";
import { extended, pasted, resized } from "../../src/image/transform.ts";
import { inputPixels, outputSize, readInput } from "../../src/pipeline/input.ts";
import { noImages } from "../../src/pipeline/read-images.ts";
import { type GenerateRequest, planRequest } from "../../src/pipeline/request.ts";
import { requestFiles } from "../../src/pipeline/request-files.ts";
import { cutOf } from "../../src/pipeline/strength.ts";
import { asFlag } from "../../src/settings/values.ts";
import { fakeModel } from "../support/fake-model.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-input-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const model = fakeModel({ defaults: { prompt: "p", steps: 10 } });
const grey = (width: number, height: number, value: number): RawImage => ({
  ...{ width, height },
  pixels: new Uint8Array(width * height).fill(value),
});
const image = { width: 96, height: 64, pixels: new Uint8Array(96 * 64 * 3).fill(90) };
const mask = extended(grey(32, 32, 255), { left: 32, top: 16, right: 32, bottom: 16 }, 0);
const options = { name: "--image", channels: 3, background: "#ff0000" } as const;

async function planOf(request: GenerateRequest, on = model) {
  const source = await readInput(request, on, asFlag);
  return planRequest(request, on, 1, asFlag, requestFiles(), { ...noImages, input: source });
}

async function sentenceOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    return (error as Error).message;
  }
  return "";
}

function file(name: string, bytes: Uint8Array | string): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

describe("reading", () => {
  const red = sharp({ create: { width: 6, height: 4, channels: 3, background: "#c80000" } });
  test.each(["png", "jpeg", "webp", "avif", "tiff", "gif"] as const)("%s", async (format) => {
    const bytes = await red.clone().toFormat(format).toBuffer();
    const { width, height, pixels } = await readImage(file(`a.${format}`, bytes), options);
    expect([width, height, pixels.length]).toEqual([6, 4, 72]);
    expect(Math.abs(pixels[0]! - 200) + pixels[1]! + pixels[2]!).toBeLessThan(16);
  });

  test("turned as EXIF says", async () => {
    const bytes = await red.clone().jpeg().withMetadata({ orientation: 6 }).toBuffer();
    expect(await readImage(bytes, options)).toMatchObject({ width: 4, height: 6 });
  });

  test("16 bits, grey, CMYK and transparent ones", async () => {
    const wide = red.clone().toColourspace("rgb16").png();
    expect((await readImage(await wide.toBuffer(), options)).pixels[0]).toBe(200);
    const one = await red.clone().greyscale().png().toBuffer();
    expect(new Set((await readImage(one, options)).pixels).size).toBe(1);
    const cmyk = await red.clone().toColourspace("cmyk").tiff().toBuffer();
    expect((await readImage(cmyk, options)).pixels.length).toBe(72);
    const clear = { r: 0, g: 0, b: 0, alpha: 0 };
    const create = { width: 2, height: 2, channels: 4, background: clear } as const;
    const bytes = await sharp({ create }).png().toBuffer();
    expect([...(await readImage(bytes, options)).pixels.slice(0, 3)]).toEqual([255, 0, 0]);
  });

  test("pixels of one byte and of three", async () => {
    expect((await readImage(grey(2, 2, 7), options)).pixels).toEqual(new Uint8Array(12).fill(7));
    const same = await readImage(image, options);
    expect(same.pixels).toBe(image.pixels);
    const asMask = await readImage(image, { ...options, channels: 1 });
    expect(asMask.pixels).toEqual(new Uint8Array(96 * 64).fill(90));
  });
});

describe("sizes", () => {
  test.each([
    [{}, 96, 64],
    [{ width: 192 }, 192, 128],
    [{ height: 32 }, 64, 32],
    [{ width: 64, height: 64 }, 64, 64],
  ])("%p", async (given, width, height) => {
    const { settings, input } = await planOf({ image, ...given });
    expect([settings.width, settings.height, settings.strength]).toEqual([width, height, 0.75]);
    expect(outputSize(input, settings)).toMatchObject({ width, height });
  });

  test("odd sizes are rounded, and extensions grow", async () => {
    const odd = { ...grey(100, 70, 1) };
    expect((await planOf({ image: odd })).settings).toMatchObject({ width: 96, height: 64 });
    const { settings, input } = await planOf({ image, extend: "left=20,top=1" });
    expect(settings).toMatchObject({ width: 128, height: 96, strength: 1 });
    expect(input!.mask!.pixels[0]).toBe(255);
    expect(input!.mask!.pixels.at(-1)).toBe(0);
  });

  test("of a masked area, with its padding and the shape that is computed", async () => {
    const area = { maskArea: "masked", maskPadding: 4, width: 64, height: 64 } as const;
    const { input, settings } = await planOf({ image, mask, ...area });
    expect(input!.area).toEqual({ left: 28, top: 12, width: 40, height: 40 });
    expect(outputSize(input, settings)).toMatchObject({ width: 96, height: 64 });
    const size = { width: 64, height: 64, compat: "diffusers" } as const;
    const { finish } = await inputPixels(input!, size, model, asFlag);
    const result = await finish(new Uint8Array(64 * 64 * 3).fill(250));
    const changed = mask.pixels.map((_, i) => (result[3 * i] === 250 ? 255 : 0));
    expect([...changed]).toEqual([...mask.pixels]);
  });

  test("fit keeps all, cover and stretch fill", async () => {
    const half = extended(grey(4, 8, 0), { left: 4, top: 0, right: 0, bottom: 0 }, 255);
    for (const mode of ["fit", "cover", "stretch"] as const) {
      const { pixels } = await resized(half, { width: 16, height: 8 }, mode);
      expect(pixels.length).toBe(128);
      expect([pixels[0], pixels.at(-1)]).toEqual([255, 0]);
    }
    expect(await resized(half, half, "cover")).toBe(half);
  });

  test("a masked part that is filled starts from the colours around it", async () => {
    const pixels = Uint8Array.from({ length: 96 * 64 * 3 }, (_, at) => (at % 3 === 0 ? 200 : 40));
    const painted = { ...image, pixels };
    for (let row = 16; row < 48; row++) pixels.fill(0, 3 * (row * 96 + 32), 3 * (row * 96 + 64));
    const { plan } = { plan: await planOf({ image: painted, mask, maskContent: "fill" }) };
    const given = await inputPixels(plan.input!, plan.settings, model, asFlag);
    const middle = 3 * (32 * 96 + 48);
    expect(given.image[middle]! - 200).toBeGreaterThanOrEqual(-4);
    expect(given.image[middle + 1]! - 40).toBeLessThanOrEqual(4);
    const finished = await given.finish(new Uint8Array(pixels.length));
    expect(finished.subarray(0, 3 * 96)).toEqual(pixels.subarray(0, 3 * 96));
  });

  test("a share of a mask mixes", () => {
    const part = { ...image, pixels: new Uint8Array(image.pixels.length).fill(190) };
    const area = { left: 0, top: 0, width: 96, height: 64 };
    expect(pasted(image, part, grey(96, 64, 51), area).pixels[5]).toBe(110);
  });
});

test("steps of a strength, as each tool counts them", () => {
  const cut = (strength: number, compat: "diffusers" | "a1111" | "comfyui") =>
    cutOf(strength, 20, { compat, isList: false, naming: asFlag });
  expect(cut(0.55, "diffusers")).toMatchObject({ stepCount: 20, firstStep: 9 });
  expect(cut(1, "diffusers")).toMatchObject({ stepCount: 20, firstStep: 0 });
  expect(cut(0.55, "a1111")).toMatchObject({ stepCount: 20, firstStep: 8 });
  expect(cut(0.55, "comfyui")).toMatchObject({ stepCount: 36, firstStep: 16 });
  expect(cut(1, "comfyui")).toMatchObject({ stepCount: 20, firstStep: 0 });
});

const png = await sharp(image.pixels, { raw: { width: 96, height: 64, channels: 3 } })
  .png()
  .toBuffer();
const jpeg = await sharp(png).jpeg().toBuffer();
const inpainting = fakeModel({ kind: "inpainting", defaults: { prompt: "p", steps: 10 } });

describe("one sentence for", () => {
  test.each<[string, GenerateRequest, RegExp]>([
    ["no file", { image: join(folder, "none.png") }, /^--image .* no such file\.$/],
    ["a folder", { image: folder }, /^--image .* cannot be read: E\w+\.$/],
    ["an empty file", { image: file("empty.png", "") }, /^--image .* is empty\.$/],
    ["a text", { image: file("text.png", "no image") }, /cannot be read as an image \(/],
    ["half a file", { image: file("b.jpg", jpeg.subarray(0, 200)) }, /cannot be read as an image/],
    ["half a PNG", { image: png.subarray(0, png.length >> 1) }, /cannot be read as an image/],
    [
      "SVG",
      { image: Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>') },
      /it is svg/,
    ],
    [
      "huge pixels",
      { image: { width: 1e5, height: 1e5, pixels: png } },
      /128 million are possible/,
    ],
    ["too few pixels", { image: { width: 9, height: 9, pixels: png } }, /9x9\.$/],
    [
      "two channels",
      { image: { ...image, pixels: image.pixels.subarray(0, 96 * 64 * 2) } },
      /bytes for 96x64/,
    ],
    ["no size", { image: { ...image, width: 0 } }, /bytes for 0x64/],
    ["another shape", { image, mask: grey(64, 96, 255) }, /^--mask is 64x96 .* the same shape\.$/],
    ["an empty mask", { image, mask: grey(96, 64, 0) }, /^--mask has no white pixels/],
    ["a full one turned", { image, mask: grey(96, 64, 255), invertMask: true }, /no black pixels/],
    ["a mask alone", { mask }, /^--mask needs an image to start from, --image\.$/],
    ["strength alone", { strength: 0.5 }, /^--strength needs an image/],
    ["extend alone", { extend: "left=8" }, /^--extend needs an image/],
    ["blur alone", { image, maskBlur: 3 }, /^--mask-blur needs a mask, --mask\.$/],
    ["a content alone", { image, maskContent: "fill" }, /^--mask-content needs a mask/],
    ["an area alone", { image, maskArea: "masked" }, /^--mask-area needs a mask/],
    ["a padding alone", { image, maskPadding: 8 }, /^--mask-padding needs a mask/],
    [
      "a padding of the whole",
      { image, mask, maskPadding: 8 },
      /^--mask-padding needs --mask-area masked\.$/,
    ],
    ["a fit alone", { resize: "fit" }, /^--resize needs an image to start from, --image\.$/],
    ["a colour alone", { imageBackground: "#000000" }, /^--image-background needs an image/],
    ["inversion alone", { image, invertMask: true }, /^--invert-mask needs a mask/],
    ["strength 0", { image, strength: 0 }, /^--strength must be above 0/],
    ["strength -1", { image, strength: -1 }, /^--strength must be a number from 0 to 1/],
    ["strength 2", { image, strength: 2 }, /^--strength must be a number from 0 to 1/],
    ["strength NaN", { image, strength: Number.NaN }, /^--strength must be a number/],
    ["too few steps", { image, strength: 0.05 }, /must be at least 0\.1/],
    ["too many", { image, strength: 0.001, compat: "comfyui" }, /more than 1000/],
    ["sides", { image, extend: "up=9" }, /^--extend must be sides/],
    ["no pixels", { image, extend: "left=0" }, /^--extend adds no pixels/],
    ["a negative side", { image, extend: "left=-9" }, /^--extend must be sides/],
    ["much of it", { image, extend: "left=99999" }, /^--extend must be sides/],
    ["no colour", { image, imageBackground: "white" }, /^--image-background must be a colour/],
    ["a blur", { image, mask, maskBlur: 999 }, /^--mask-blur must be a whole number/],
    ["a resize", { image, resize: "crop" as "fit" }, /^--resize must be cover, fit or stretch/],
    ["a padding", { image, mask, maskPadding: -1 }, /^--mask-padding must be/],
    ["a negative blur", { image, mask, maskBlur: -1 }, /^--mask-blur must be a whole number/],
    ["no file of a mask", { image, mask: join(folder, "none.png") }, /^--mask .* no such file\.$/],
    ["half a mask", { image, mask: png.subarray(0, 60) }, /^--mask .*cannot be read as an image/],
    ["an odd width", { image, width: 40 }, /^--width must be a multiple of 32/],
    ["an odd height", { image, height: 40 }, /^--height must be a multiple of 32/],
    ["a large width", { image, width: 99968 }, /^--width must be a whole number from 1 to/],
  ])("%s", async (_, request, pattern) => {
    const sentence = await sentenceOf(planOf(request));
    expect(sentence).toMatch(pattern);
    expect(sentence).not.toContain("\n");
  });

  test("a model for inpainting without a mask, and a mask without positions", async () => {
    expect(await sentenceOf(planOf({}, inpainting))).toMatch(/from text alone it cannot generate/);
    expect(await sentenceOf(planOf({ image }, inpainting))).toMatch(/without a mask it cannot/);
    const dot = extended(grey(1, 1, 255), { left: 33, top: 33, right: 62, bottom: 30 }, 0);
    const { input, settings } = await planOf({ image, mask: dot });
    expect(await sentenceOf(inputPixels(input!, settings, model, asFlag))).toMatch(
      /^--mask is too small/,
    );
  });
});
