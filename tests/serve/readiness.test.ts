/**
 * Whether a server takes jobs: before its first model is loaded, where that cannot be, and after.
 */

import { expect, test } from "bun:test";
import { cpSync } from "node:fs";
import { join } from "node:path";
import { BasedXLError } from "../../src/errors.ts";
import { outputsFolder, startTestServer, type TestServer } from "../support/serve-fixture.ts";
import { root } from "../support/sources.ts";

const small = { width: 32, height: 32, num_inference_steps: 2, seed: 7 };
const broken = () => new BasedXLError("bad-weights", "The weights of the first are broken.");

async function readiness(server: TestServer): Promise<[number, string]> {
  const response = await server.fetch("/ready");
  const { message = "" } = (await response.json()) as { message?: string };
  return [response.status, message];
}

/** The answer once the first model is loaded, or is not. */
async function afterLoading(server: TestServer): Promise<[number, string]> {
  for (;;) {
    const [status, message] = await readiness(server);
    if (!message.includes("is being loaded")) return [status, message];
    await Bun.sleep(2);
  }
}

test("a job of a broken model says why, and one of another makes the server ready", async () => {
  const models = outputsFolder();
  for (const name of ["first", "second"]) {
    cpSync(join(root, "src/assets/mini-sdxl"), join(models, name), { recursive: true });
  }
  const flags = { model: `${join(models, "first")}\0${join(models, "second")}` };
  const loadFailures = [broken(), broken()];
  await using server = await startTestServer({ flags, loadFailures, waits: false });
  const [status, message] = await afterLoading(server);
  expect([status, message]).toEqual([503, expect.stringContaining("could not be loaded")]);
  // Whoever asks has no key.
  expect(message).not.toMatch(/weights|first is|\//);
  const failed = await server.ended((await server.submit(small, { model: "first" })).id);
  expect(failed).toMatchObject({ state: "failed", error: { code: "bad-weights" } });
  expect(failed.error!.message).toBe(broken().message);
  expect((await readiness(server))[0]).toBe(503);
  const done = await server.ended((await server.submit(small, { model: "second" })).id);
  expect(done.state).toBe("done");
  expect(await readiness(server)).toEqual([200, ""]);
});

test("a model that is mended is loaded by the job that names it", async () => {
  await using server = await startTestServer({ loadFailures: [broken()], waits: false });
  expect((await afterLoading(server))[0]).toBe(503);
  expect((await server.ended((await server.submit(small)).id)).state).toBe("done");
  expect(await readiness(server)).toEqual([200, ""]);
});

test("a server whose GPU is gone is not ready until a model is loaded again", async () => {
  const lost = new BasedXLError("gpu-failed", "cuStreamQuery failed on GPU 0.");
  lost.sessionLost = true;
  const gone = new BasedXLError("gpu-failed", "cuDevicePrimaryCtxRetain failed on GPU 0.");
  const loadFailures: Error[] = [];
  await using server = await startTestServer({ failures: [lost], loadFailures });
  loadFailures.push(gone);
  const failed = await server.ended((await server.submit(small)).id);
  expect(failed).toMatchObject({ state: "failed", error: { message: gone.message } });
  const [status, message] = await readiness(server);
  expect([status, message]).toEqual([503, expect.stringContaining("A GPU has failed")]);
  expect((await server.ended((await server.submit(small)).id)).state).toBe("done");
  expect(await readiness(server)).toEqual([200, ""]);
});

test("jobs of an earlier server run though the first model cannot be loaded", async () => {
  const outputs = outputsFolder();
  const first = await startTestServer({ outputs, stepMs: 50 });
  const { id } = await first.submit({ ...small, num_inference_steps: 20 });
  await first.stop();
  await using second = await startTestServer({
    ...{ outputs, loadFailures: [broken()], waits: false },
  });
  let { state } = await second.job(id);
  // It has none of its events before the server has taken it up.
  for (; state === "running" || state === "queued"; state = (await second.job(id)).state) {
    await Bun.sleep(2);
  }
  expect(state).toBe("done");
});

/** A server whose first model loads until `load` is called, and a job that runs already. */
async function whileLoading() {
  const { promise: loading, resolve: load } = Promise.withResolvers<void>();
  const server = await startTestServer({ loading, waits: false });
  const { id } = await server.submit(small);
  while ((await server.job(id)).state !== "running") await Bun.sleep(2);
  return { server, id, load };
}

test("a job that comes while its model loads waits for that, and loads no second one", async () => {
  const { server, id, load } = await whileLoading();
  expect(await readiness(server)).toEqual([503, "The first model is being loaded."]);
  load();
  expect((await server.ended(id)).state).toBe("done");
  expect(server.log.opened.length).toBe(1);
  await server.stop();
});

test("such a job can be cancelled before the model is loaded", async () => {
  const { server, id, load } = await whileLoading();
  expect((await server.fetch(`/api/v1/jobs/${id}`, { method: "DELETE" })).status).toBe(200);
  expect((await server.ended(id)).state).toBe("cancelled");
  load();
  await server.stop();
});
