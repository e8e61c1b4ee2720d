/**
 * Jobs that name a VAE: the model is loaded with it, and it goes with the job.
 */
import { afterAll, expect, test } from "bun:test";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { preparePipeline } from "../../src/pipeline.ts";
import { outputsFolder, startTestServer } from "../support/serve-fixture.ts";

const small = { width: 32, height: 32, num_inference_steps: 3, seed: 7 };
const folder = mkdtempSync(join(tmpdir(), "basedxl-vaes-"));
afterAll(() => rmSync(folder, { recursive: true }));
const { model } = await preparePipeline({ devices: { device: "cpu" } });
const [own] = model.weights.vae.files;
mkdirSync(join(folder, "vae"));
const other = join(folder, "vae", "Bright.safetensors");
copyFileSync(own!, other);
writeFileSync(join(folder, "vae", "broken.safetensors"), "no weights");

const flags = { "models-dir": folder };

test("a job's VAE is decoded with; others keep the model's", async () => {
  await using server = await startTestServer({ flags });
  await server.post("/api/v1/refresh", {});
  const listed = await (await server.fetch("/api/v1/capabilities")).json();
  expect(listed).toMatchObject({ vaes: [{ name: "Bright" }] });
  for (const vae of [undefined, "bright", undefined]) {
    const { id } = await server.submit(small, { vae });
    const { state, spec } = await server.ended(id);
    expect({ state, vae: (spec as { vae?: string }).vae }).toEqual({
      ...{ state: "done", vae: vae && "Bright" },
    });
  }
  const opened = server.log.opened.map(({ model: { weights } }) => weights.vae.files);
  // By default one model stays loaded, and one with another VAE counts as another.
  expect(opened).toEqual([[own!], [other], [own!]]);
  const refused = await server.post("/api/v1/jobs", { request: small, vae: "Brigt" });
  expect(refused.status).toBe(400);
  expect(await refused.json()).toMatchObject({
    error: {
      message: 'The server has no VAE "Brigt" for the model mini-sdxl. Did you mean Bright?',
    },
  });
});

test("after a restart it has the same VAE, or says that it is gone", async () => {
  const outputs = outputsFolder();
  const before = await startTestServer({ outputs, flags, stepMs: 1000 });
  const { id } = await before.submit(small, { vae: "Bright" });
  const waiting = await before.submit(small, { vae: "Bright" });
  await before.stop();
  {
    await using server = await startTestServer({ outputs, flags, stepMs: 400 });
    expect(await server.ended(id)).toMatchObject({ state: "done" });
    expect(server.log.opened.at(-1)!.model.weights.vae.files).toEqual([other]);
  }
  await using server = await startTestServer({ outputs });
  const { state, error } = await server.ended(waiting.id);
  expect({ state, message: error?.message }).toEqual({
    state: "failed",
    message: "The server no longer has the model mini-sdxl with the VAE Bright.",
  });
});
