/**
 * Servers that are killed while they generate: no job is lost, no image made twice, no file broken.
 * `bun run bench serve --parts kills` does it 20 times.
 */
import { expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { killWhileGenerating, ServeProcess } from "../../src/bench/support/serve-process.ts";
import { seed, seedName } from "../support/seed.ts";

test(`kill -9 at two random moments (${seedName})`, async () => {
  const outputs = mkdtempSync(join(tmpdir(), "basedxl-serve-"));
  let state = seed;
  const random = () => {
    state = (state * 1103515245 + 12345) % 2 ** 31;
    return state / 2 ** 31;
  };
  const options = { jobCount: 4, killCount: 2, random };
  expect(await killWhileGenerating(outputs, options)).toEqual([]);
  expect(readdirSync(outputs).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  rmSync(outputs, { recursive: true });
}, 120_000);

test("SIGTERM stops within a step, and the next server goes on", async () => {
  const outputs = mkdtempSync(join(tmpdir(), "basedxl-serve-"));
  const args = ["--device", "cpu"];
  const first = await ServeProcess.start(outputs, args);
  await first.isReady();
  const { id } = await first.submit({ num_inference_steps: 400, seed: 1 });
  while ((await first.job(id)).progress === null) await Bun.sleep(5);
  await first.kill("SIGTERM");
  await using second = await ServeProcess.start(outputs, args);
  await second.isReady();
  while ((await second.job(id)).state !== "running") await Bun.sleep(5);
  await second.fetch(`/api/v1/jobs/${id}`, { method: "DELETE" });
  expect((await second.ended(id)).state).toBe("cancelled");
  rmSync(outputs, { recursive: true });
}, 120_000);
