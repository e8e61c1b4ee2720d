/**
 * `basedxl upscale`: where files go, what they keep, and what is refused.
 */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { writeImage } from "../../src/image.ts";
import { textsAt } from "../../src/metadata/read.ts";
import { removeUpscalers, writeUpscaler } from "../support/upscaler-files.ts";

// A process each, and the cores may be busy.
setDefaultTimeout(60_000);

const main = join(import.meta.dir, "../../src/main.ts");
const work = mkdtempSync(join(tmpdir(), "basedxl-upscale-run-"));
afterAll(() => {
  removeUpscalers();
  rmSync(work, { recursive: true });
});

async function run(...words: string[]) {
  const command = [process.execPath, main, "upscale", ...words, "--device", "cpu"];
  const child = Bun.spawn(command, { cwd: work, stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { stdout, stderr, code };
}

test("keeps transparency and parameters, and adds its own", async () => {
  const upscaler = writeUpscaler("rrdbnet_x2");
  const pixels = Uint8Array.from({ length: 4 * 20 * 12 }, (_, i) => (i % 4 === 3 ? 100 : i));
  const parameters = "a cat\nSteps: 20, Sampler: Euler, Seed: 1, Size: 20x12";
  await writeImage(join(work, "a.png"), pixels, 20, 12, { texts: { parameters } });
  writeFileSync(join(work, "b.webp"), await sharp(pixels, raw).webp().toBuffer());
  const { stdout, code } = await run("a.png", "b.webp", "--upscaler", upscaler, "--json");
  expect(code).toBe(0);
  const [path, second] = [join(work, "a-2x.png"), join(work, "b-2x.webp")];
  expect(JSON.parse(stdout)).toMatchObject({
    images: [
      { path, source: join(work, "a.png"), width: 40, height: 24 },
      { path: second, width: 40, height: 24 },
    ],
    ...{ upscaler, scale: 2 },
  });
  const { data, info } = await sharp(path).raw().toBuffer({ resolveWithObject: true });
  expect(info).toMatchObject({ width: 40, height: 24, channels: 4 });
  expect(data.every((value, i) => i % 4 !== 3 || value === 100)).toBe(true);
  expect(textsAt(path).parameters).toBe(
    `${parameters}, Postprocess upscale by: 2, Postprocess upscaler: "rrdbnet_x2"`,
  );
  const third = await run("a.png", "--upscaler", upscaler, "--scale", "3", "--out", "c.jpg");
  expect(third.code).toBe(0);
  expect(await sharp(join(work, "c.jpg")).metadata()).toMatchObject({ width: 60, height: 36 });
});

const raw = { raw: { width: 20, height: 12, channels: 4 } } as const;

test("refuses in a sentence", async () => {
  const upscaler = writeUpscaler("rrdbnet_x2");
  writeFileSync(
    join(work, "d.png"),
    await sharp(new Uint8Array(4 * 20 * 12), raw)
      .png()
      .toBuffer(),
  );
  writeFileSync(join(work, "old.pth"), "\x80\x02}q\0.");
  const cases: [words: string[], code: number, sentence: string][] = [
    [["--upscaler", upscaler], 2, "Name the images to enlarge."],
    [["d.png"], 2, "--upscaler is missing"],
    [["d.png", "--upscaler", upscaler, "--scale", "99"], 2, "--scale must be"],
    [["d.png", "--upscaler", upscaler, "--out", "d.png"], 2, "is one of the images themselves"],
    [["d.png", "--upscaler", "old.pth"], 1, "holds pickled weights"],
    [["none.png", "--upscaler", upscaler], 1, "none.png"],
  ];
  for (const [words, code, sentence] of cases) {
    const result = await run(...words);
    expect(result.stderr).toContain(sentence);
    expect(result.code).toBe(code);
  }
});
