/**
 * `sample --xyz` and `--grid` as users run them: every cell is the image of its own flags, also
 * from its own metadata, and the sheet has all of them and names the axes.
 */
import { afterAll, expect, spyOn, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { runCli } from "../../src/cli.ts";
import { recallImage } from "../../src/metadata.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-sheets-"));
afterAll(() => rmSync(folder, { recursive: true }));

const path = (name: string) => join(folder, name);
const common = ["--device", "cpu", "--width", "64", "--height", "64", "--seed", "7"];

test("every cell is the image that its flags make, and repeats from its metadata", async () => {
  const out = spyOn(process.stdout, "write").mockReturnValue(true);
  const xyz = "guidance=1,4;sr=red,blue";
  const args = ["a red house", "--xyz", xyz, "--steps", "2", "--out", path("a.png"), "--json"];
  expect(await runCli(["sample", ...common, ...args])).toBe(0);
  const report = JSON.parse(String(out.mock.calls.flat().join("")));
  out.mockRestore();
  expect(report.grid).toBe(path("a-grid.png"));
  const all = report.images.map(({ axes }: { axes: object }) => Object.values(axes).join(" "));
  expect(all).toEqual(["1 red", "4 red", "1 blue", "4 blue"]);

  const last = readFileSync(path("a-4.png"));
  const alone = ["a blue house", "--guidance-scale", "4", "--steps", "2", "--out", path("b.png")];
  expect(await runCli(["sample", ...common, ...alone, "--quiet"])).toBe(0);
  expect(readFileSync(path("b.png")).equals(last)).toBe(true);
  const again = ["--from-image", path("a-4.png"), "--out", path("c.png"), "--quiet"];
  expect(await runCli(["sample", "--device", "cpu", ...again])).toBe(0);
  expect(readFileSync(path("c.png")).equals(last)).toBe(true);

  const sheet = readFileSync(path("a-grid.png"));
  expect(sheet.includes("X Type: CFG Scale, X Values: ")).toBe(true);
  const recalled = await recallImage(path("a-grid.png"));
  expect(recalled.settings).toMatchObject({ prompt: "a red house", seed: 7n, stepCount: 2 });
  const pixels = await sharp(last).raw().toBuffer();
  const { data, info } = await sharp(sheet).raw().toBuffer({ resolveWithObject: true });
  const row = data.indexOf(pixels.subarray(0, 64 * 3));
  expect(row).toBeGreaterThan(0);
  const second = row + info.width * 3;
  expect(data.subarray(second, second + 192).equals(pixels.subarray(192, 384))).toBe(true);
}, 60_000);

test("cells start from an image that is read once for all that read the same", async () => {
  const sample = (...args: string[]) => runCli(["sample", ...common.slice(0, 2), ...args]);
  const start = ["a house", ...common.slice(2), "--steps", "2", "--out", path("i.png"), "--quiet"];
  expect(await sample(...start)).toBe(0);
  const from = ["a cat", "--seed", "7", "--image", path("i.png"), "--steps", "3"];
  const axes = ["--xyz", "seed=7,8;strength=0.4,0.8", "--out", path("j.png"), "--quiet"];
  expect(await sample(...from, ...axes)).toBe(0);
  const alone = ["--seed", "8", "--strength", "0.8", "--out", path("k.png"), "--quiet"];
  expect(await sample("a cat", ...from.slice(3), ...alone)).toBe(0);
  expect(readFileSync(path("k.png")).equals(readFileSync(path("j-4.png")))).toBe(true);
}, 60_000);

test("a sheet has cells of the size that a masked area is put back into", async () => {
  const sample = (...args: string[]) => runCli(["sample", ...common.slice(0, 2), ...args]);
  const grey = { width: 96, height: 64, channels: 3, background: "#808080" } as const;
  await sharp({ create: grey }).png().toFile(path("l.png"));
  const whole = ["--image", path("l.png"), "--mask", path("m.png"), "--mask-area", "masked"];
  const create = { ...grey, background: "#000000" } as const;
  const input = await sharp({ create: { ...grey, width: 32, height: 32, background: "#ffffff" } })
    .png()
    .toBuffer();
  await sharp({ create })
    .composite([{ input, left: 32, top: 16 }])
    .png()
    .toFile(path("m.png"));
  const size = ["--width", "64", "--height", "64", "--mask-padding", "4", "--steps", "2"];
  const axes = ["--xyz", "seed=1,2", "--out", path("n2.png"), "--quiet"];
  expect(await sample("a cat", ...whole, ...size, ...axes)).toBe(0);
  const { data, info } = await sharp(path("n2-grid.png"))
    .raw()
    .toBuffer({ resolveWithObject: true });
  const second = await sharp(path("n2-2.png")).raw().toBuffer();
  const row = data.indexOf(second.subarray(30 * 288, 31 * 288));
  expect(row).toBeGreaterThan(0);
  const next = row + info.width * 3;
  expect(data.subarray(next, next + 288).equals(second.subarray(31 * 288, 32 * 288))).toBe(true);
}, 60_000);

test("--json has the warnings of all cells", async () => {
  const out = spyOn(process.stdout, "write").mockReturnValue(true);
  const axes = ["--xyz", "eta=0.1;sampler=euler,euler_a", "--no-cells", "--out", path("w.png")];
  const args = ["x", ...common, "--steps", "1", ...axes, "--json", "--quiet"];
  expect(await runCli(["sample", ...args])).toBe(0);
  const { warnings } = JSON.parse(String(out.mock.calls.flat().join("")));
  out.mockRestore();
  expect(warnings).toEqual(["--eta is not used by the scheduler euler."]);
}, 60_000);

test("axes override an image's settings as their flags do", async () => {
  const sample = (...args: string[]) => runCli(["sample", "--device", "cpu", "--quiet", ...args]);
  const comfy = ["a (red:1.4) house", "--compat", "comfyui", "--steps", "2", "--num-images", "2"];
  expect(await sample(...common.slice(2), ...comfy, "--out", path("o.png"))).toBe(0);
  const from = ["--from-image", path("o-2.png")];
  const axes = ["--xyz", "compat=a1111,comfyui;sampler=euler_a", "--out", path("p.png")];
  expect(await sample(...from, ...axes)).toBe(0);
  const flags = ["--compat", "a1111", "--scheduler", "euler_a", "--out", path("q.png")];
  expect(await sample(...from, ...flags)).toBe(0);
  expect(readFileSync(path("p-1.png")).equals(readFileSync(path("q.png")))).toBe(true);
}, 60_000);

test("--grid writes a sheet beside the images, --no-cells a sheet alone", async () => {
  const grid = ["x", "--num-images", "3", "--grid", "--steps", "1", "--out", path("g.webp")];
  const out = spyOn(process.stdout, "write").mockReturnValue(true);
  expect(await runCli(["sample", ...common, ...grid, "--quiet", "--json"])).toBe(0);
  expect(JSON.parse(String(out.mock.calls.flat().join(""))).grid).toBe(path("g-grid.webp"));
  out.mockRestore();
  const { width, height } = await sharp(path("g-grid.webp")).metadata();
  expect(width).toBeGreaterThan(3 * 64);
  expect(height).toBeLessThan(2 * 64);
  expect(existsSync(path("g-3.webp"))).toBe(true);
  const alone = ["x", "--xyz", "steps=1-2", "--no-cells", "--out", path("n.jpg")];
  expect(await runCli(["sample", ...common, ...alone, "--quiet"])).toBe(0);
  expect(existsSync(path("n-grid.jpg"))).toBe(true);
  expect(existsSync(path("n-1.jpg"))).toBe(false);
}, 60_000);

test("Ctrl-C keeps the cells that are written, and a sheet of them", async () => {
  const lines: string[] = [];
  const written = spyOn(process.stderr, "write").mockImplementation((text) => {
    lines.push(String(text));
    if (String(text).includes("Wrote") && lines.join("").includes("s-1.png: ")) {
      process.kill(process.pid, "SIGINT");
    }
    return true;
  });
  const args = ["x", "--xyz", "steps=4,900", "--out", path("s.png")];
  expect(await runCli(["sample", ...common, ...args])).toBe(130);
  written.mockRestore();
  expect(lines.join("")).toContain("s-grid.png, 1 of 2 images, in ");
  expect([1, 2].map((number) => existsSync(path(`s-${number}.png`)))).toEqual([true, false]);
  expect((await sharp(path("s-grid.png")).metadata()).width).toBeGreaterThan(128);
}, 60_000);
