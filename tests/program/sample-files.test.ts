/**
 * The files of `sample`: their names, and refusals before generation.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ImageWriter, imagePaths } from "../../src/commands/sample-files.ts";
import { refusal } from "../support/refusal.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-files-"));
afterAll(() => rmSync(folder, { recursive: true }));
const { signal } = new AbortController();

test("one image has the name as it was given, several are numbered before the ending", () => {
  expect(imagePaths("sample.png", 1)).toEqual(["sample.png"]);
  expect(imagePaths("a.b/c.d.webp", 2)).toEqual(["a.b/c.d-1.webp", "a.b/c.d-2.webp"]);
  expect(imagePaths("sample.png", 64).at(-1)).toBe("sample-64.png");
});

const size = { width: 2, height: 1 };

describe("refused before generation", () => {
  const check = (outPath: string, imageCount = 1, latentsPath?: string) =>
    refusal(() => ImageWriter.open({ outPath, latentsPath, imageCount }, size), "io");

  test("any of the names that is a folder, and a folder that is not there", async () => {
    const path = join(folder, "taken.png");
    mkdirSync(join(folder, "taken-3.png"));
    expect(await check(path, 3)).toContain("taken-3.png: it is a folder");
    await ImageWriter.open({ outPath: path, latentsPath: undefined, imageCount: 2 }, size);
    const latents = join(folder, "no", "l.safetensors");
    expect(await check(path, 1, latents)).toContain(`Cannot write ${latents}`);
  });

  test("a size the format cannot hold", async () => {
    const options = { outPath: "a.webp", latentsPath: undefined, imageCount: 1 };
    const open = () => ImageWriter.open(options, { width: 16384, height: 32 });
    expect(await refusal(open, "bad-option")).toContain("webp");
  });
});

test("images are written in order, and reported with their seeds", async () => {
  const outPath = join(folder, "p.png");
  const options = { outPath, latentsPath: undefined, imageCount: 2 };
  const writer = await ImageWriter.open(options, size);
  const pixels = new Uint8Array(6);
  expect(await writer.writeImage({ seed: 7n, pixels, ...size }, signal)).toEqual({
    path: join(folder, "p-1.png"),
    seed: 7n,
    hasTexts: true,
  });
  await writer.writeImage({ seed: 8n, pixels, ...size }, signal);
  expect(readdirSync(folder).filter((name) => name.startsWith("p"))).toEqual([
    "p-1.png",
    "p-2.png",
  ]);
  expect(writer.toJson()).toEqual([
    { path: join(folder, "p-1.png"), seed: "7" },
    { path: join(folder, "p-2.png"), seed: "8" },
  ]);
  expect(writer.writeMs).toBeGreaterThan(0);
});
