/**
 * `--refiner` as users run it: both models in one command, what is said of it, and the image again
 * from what it carries.
 */
import { afterAll, expect, spyOn, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { runCli } from "../../src/cli.ts";
import { removeCopies } from "../support/model-copy.ts";
import { refinerFolder } from "../support/refiner-model.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-refined-"));
const refiner = refinerFolder();
const before = process.env.BASEDXL_CACHE_DIR;
process.env.BASEDXL_CACHE_DIR = join(folder, "cache");
afterAll(() => {
  if (before === undefined) delete process.env.BASEDXL_CACHE_DIR;
  else process.env.BASEDXL_CACHE_DIR = before;
  rmSync(folder, { recursive: true });
  removeCopies();
});

const both = ["--model", goldenModel, "--refiner", refiner];
const small = ["--width", "64", "--height", "64", "--steps", "5", "--seed", "3"];

async function run(...args: string[]) {
  const out = spyOn(process.stdout, "write").mockReturnValue(true);
  const errors = spyOn(process.stderr, "write").mockReturnValue(true);
  try {
    const code = await runCli(["sample", "--device", "cpu", ...args]);
    const [stdout, stderr] = [out, errors].map((each) => each.mock.calls.flat().join(""));
    return { code, stdout: stdout!, stderr: stderr! };
  } finally {
    out.mockRestore();
    errors.mockRestore();
  }
}

test("an image of both models, and the same again", async () => {
  const [first, second] = ["a.png", "b.png"].map((name) => join(folder, name));
  const flags = [...both, ...small, "--denoising-end", "0.6", "--json", "--out", first!];
  const made = await run("a red circle", ...flags);
  expect([made.code, made.stderr]).toEqual([0, expect.any(String)]);
  const json = JSON.parse(made.stdout);
  expect([json.refiner, json.denoising_end, json.steps]).toEqual([refiner, 0.6, 5]);
  const text = readFileSync(first!).toString("latin1");
  expect(text).toContain("Refiner switch at: 0.6");
  // The refiner is found by its hash.
  const again = ["--from-image", first!, ...both.slice(0, 2), "--out", second!];
  expect((await run(...again)).code).toBe(0);
  expect(readFileSync(second!).equals(readFileSync(first!))).toBe(true);
  process.env.BASEDXL_CACHE_DIR = join(folder, "empty");
  const alone = await run(...again);
  expect(alone.stderr).toContain("is not in the folders of models: it is left out.");
}, 60_000);

test("an end without a refiner is refused", async () => {
  const { code, stderr } = await run("a", ...small, "--denoising-end", "0.5");
  expect(code).not.toBe(0);
  expect(stderr).toContain("--denoising-end needs --refiner");
});
