/**
 * `basedxl sample --vae`: what a user sees of another VAE.
 */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { ldmTensors, removeVaes, writeVae } from "../support/vae-files.ts";

const root = join(import.meta.dir, "../..");
const work = mkdtempSync(join(tmpdir(), "basedxl-vae-run-"));
afterAll(() => {
  removeVaes();
  rmSync(work, { recursive: true });
});

test("--vae names the VAE in --json, and what it is taken for with --verbose", async () => {
  const path = join(import.meta.dir, "../fixtures/golden/model");
  const model = await openModelFolder(path);
  const vae = writeVae("other.safetensors", ldmTensors(model, "first_stage_model."));
  const size = ["--width", "64", "--height", "64", "--steps", "1", "--device", "cpu"];
  const what = ["sample", "x", "--model", path, "--vae", vae, "--verbose", "--json", ...size];
  const command = [process.execPath, join(root, "src", "main.ts"), ...what];
  const child = Bun.spawn(command, { cwd: work, stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  expect(JSON.parse(stdout)).toMatchObject({ vae, model: path });
  expect(stderr).toContain(
    `VAE: ${vae} (original keys), scaling factor ${model.vae.scalingFactor}; that is the model's`,
  );
}, 60_000);
