/**
 * Jobs on workers through a real Redis. Where the machine has none these tests are skipped.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { Redis } from "ioredis";
import { findRedis, RedisProcess } from "../../src/bench/support/redis-process.ts";
import { killWorkers } from "../../src/bench/support/serve-process.ts";
import { noticeChannel, workerKeyOf, workersKey } from "../../src/serve/remote/messages.ts";
import { startStore } from "../support/object-store.ts";
import { refusal } from "../support/refusal.ts";
import { sampled, seedName } from "../support/seed.ts";
import {
  type JobJson,
  outputsFolder,
  startTestServer,
  startTestWorker,
  type TestServer,
} from "../support/serve-fixture.ts";

const command = findRedis();
if (command === null) console.log("Skipped: no redis-server or valkey-server on the PATH.");

const small = { width: 32, height: 32, num_inference_steps: 3, seed: 7 };
const long = { ...small, num_inference_steps: 1000 };

async function isRunning(server: TestServer, { id }: JobJson): Promise<void> {
  while ((await server.job(id)).progress === null) await Bun.sleep(5);
}

const imagesIn = (folder: string) => {
  return readdirSync(folder).filter((name) => name.endsWith(".png"));
};

describe.skipIf(command === null)("with a Redis", () => {
  let redis: RedisProcess;
  beforeAll(async () => {
    redis = await RedisProcess.start(command!);
  });
  afterAll(async () => {
    await redis?.[Symbol.asyncDispose]();
  });

  /** A server and its workers, which share a folder. */
  async function startAll(workerCount: number, stepMs = 1) {
    const outputs = outputsFolder();
    const flags = { queue: redis.url, "worker-timeout": "1" };
    const server = await startTestServer({ outputs, flags });
    const start = () => startTestWorker(redis.url, { outputs, stepMs, flags });
    const workers = await Promise.all(Array.from({ length: workerCount }, start));
    return {
      ...{ outputs, server, workers, start },
      async [Symbol.asyncDispose]() {
        await Promise.all(workers.map((worker) => worker.stop()));
        await server.stop();
      },
    };
  }

  test("a job makes the same file and tells the same as without workers", async () => {
    await using here = await startTestServer();
    await using all = await startAll(2, 20);
    const told: string[][] = [];
    const files: Uint8Array[] = [];
    for (const server of [here, all.server]) {
      const { id } = await server.submit({ ...small, num_images: 2 });
      const events = await server.events(id);
      told.push(events.map(({ type }) => type).filter((type) => type !== "progress"));
      const { images, state, attempts } = await server.job(id);
      expect({ state, attempts }).toEqual({ state: "done", attempts: 1 });
      for (const { file } of images) files.push(readFileSync(join(server.outputs, file)));
    }
    expect(told[1]).toEqual(told[0]!);
    expect(files.slice(2)).toEqual(files.slice(0, 2));
  });

  test("messages of another version are no end of the server or its workers", async () => {
    await using all = await startAll(1);
    const other = new Redis(redis.url);
    for (const text of ["{", "null", "7", '{"type":"cancel"}', '{"type":"workers","id":[]}']) {
      await other.publish(noticeChannel, text);
    }
    await other.sadd(workersKey, "a", "b");
    await other.mset(workerKeyOf("a"), '{"models":null,"places":"x"}', workerKeyOf("b"), "[");
    const { id } = await all.server.submit(small);
    expect(await all.server.ended(id)).toMatchObject({ state: "done", attempts: 1 });
    await other.srem(workersKey, "a", "b");
    await other.quit();
  });

  test("a job's refiner is loaded by its worker", async () => {
    await using all = await startAll(1);
    const { log } = all.workers[0]!;
    const before = log.opened.length;
    const request = { ...small, denoising_end: 0.6 };
    const { id } = await all.server.submit(request, { refiner: "mini-sdxl" });
    expect(await all.server.ended(id)).toMatchObject({ state: "done", error: null });
    // The same model twice: one takes the first steps, the other the rest.
    expect(log.opened.slice(before).map(({ model: { kind } }) => kind)).toEqual(["base", "base"]);
  });

  test("images travel through a store where server and worker share no folder", async () => {
    using store = startStore();
    const before = { ...process.env };
    Object.assign(process.env, store.environment);
    try {
      const flags = { queue: redis.url, store: "s3://images/made" };
      await using server = await startTestServer({ flags });
      await using _ = await startTestWorker(redis.url, { outputs: outputsFolder(), flags });
      const { id } = await server.submit({ ...small, num_images: 2 });
      const { state, images } = await server.ended(id);
      expect({ state, files: images.map(({ file }) => file) }).toEqual({
        ...{ state: "done", files: [`${id}-0.png`, `${id}-1.png`] },
      });
      for (const { file } of images) {
        const kept = new Uint8Array(readFileSync(join(server.outputs, file)));
        expect(kept).toEqual(new Uint8Array(store.objects.get(`/images/made/${file}`)!));
      }
    } finally {
      for (const name of Object.keys(store.environment)) delete process.env[name];
      Object.assign(process.env, before);
    }
  });

  test("what cannot start leaves no connection, which would keep its process", async () => {
    using other = Bun.serve({ port: 0, fetch: () => new Response() });
    const flags = { queue: redis.url };
    const busy = { ...flags, port: String(other.port) };
    expect(await refusal(() => startTestServer({ flags: busy }), "io")).toContain("Cannot listen");
    const outputs = join(outputsFolder(), "file");
    writeFileSync(outputs, "");
    await refusal(() => startTestServer({ flags, outputs }), "io");
    await refusal(() => startTestWorker(redis.url, { outputs }), "io");
    const client = new Redis(redis.url);
    const countClients = async () =>
      String(await client.client("LIST"))
        .trim()
        .split("\n").length;
    while ((await countClients()) > 1) await Bun.sleep(10);
    client.disconnect();
  });

  test("many jobs on three workers are done once each", async () => {
    // Long enough for a worker on a busy core to come before all are taken.
    await using all = await startAll(3, 60);
    const jobs: JobJson[] = [];
    for (let seed = 0; seed < 12; seed++) jobs.push(await all.server.submit({ ...small, seed }));
    const ended = await Promise.all(jobs.map(({ id }) => all.server.ended(id)));
    expect(ended.filter(({ state }) => state !== "done")).toEqual([]);
    const counts = all.workers.map(({ log }) => log.images.length);
    expect(counts.reduce((sum, count) => sum + count)).toBe(12);
    expect(Math.min(...counts)).toBeGreaterThan(0);
    expect(imagesIn(all.outputs)).toHaveLength(12);
  });

  test("cancels what runs within a step, and what waits", async () => {
    await using all = await startAll(1, 20);
    const running = await all.server.submit(long);
    const waiting = await all.server.submit(long);
    await isRunning(all.server, running);
    const answer = await all.server.post("/api/v1/cancel", { what: "all" });
    expect(await answer.json()).toEqual({ cancelled: 2 });
    const ended = [await all.server.ended(running.id), await all.server.ended(waiting.id)];
    expect(ended.map(({ state }) => state)).toEqual(["cancelled", "cancelled"]);
    const next = await all.server.submit(small);
    expect((await all.server.ended(next.id)).state).toBe("done");
  });

  test("a worker that stops gives its job back, and what it made stays", async () => {
    await using all = await startAll(1, 20);
    const { id } = await all.server.submit({ ...small, num_images: 3, batch_size: 1 });
    while ((await all.server.job(id)).images.length === 0) await Bun.sleep(5);
    await all.workers[0]!.stop();
    const made = all.workers[0]!.log.images.flatMap(({ seeds }) => seeds.map(String));
    await using other = await all.start();
    const job = await all.server.ended(id);
    expect(job).toMatchObject({ state: "done", attempts: 2 });
    expect(job.images.map(({ seed }) => seed)).toEqual(["7", "8", "9"]);
    const again = other.log.images.flatMap(({ seeds }) => seeds.map(String));
    expect(made).toContain("7");
    expect(again).not.toContain("7");
  });

  test("a worker that stops takes no other job while a step ends", async () => {
    await using all = await startAll(0);
    const flags = { queue: redis.url, "worker-timeout": "1", gpus: "2", share: "1x2" };
    const worker = await startTestWorker(redis.url, { outputs: all.outputs, stepMs: 400, flags });
    const running = await all.server.submit(small);
    await isRunning(all.server, running);
    const stopping = worker.stop();
    const other = await all.server.submit(small);
    await stopping;
    expect(worker.lines.filter(({ event }) => event === "job_taken")).toHaveLength(1);
    await using _ = await all.start();
    for (const { id } of [running, other]) expect((await all.server.ended(id)).state).toBe("done");
  }, 30_000);

  test("a server that is started again goes on with what runs on workers", async () => {
    await using all = await startAll(1, 20);
    const running = await all.server.submit({ ...small, num_inference_steps: 60 });
    const waiting = await all.server.submit({ ...small, seed: 8 });
    await isRunning(all.server, running);
    await all.server.stop();
    const flags = { queue: redis.url };
    await using server = await startTestServer({ outputs: all.outputs, flags });
    for (const { id } of [running, waiting]) {
      expect(await server.ended(id)).toMatchObject({ state: "done", error: null });
    }
    expect(all.workers[0]!.log.images).toHaveLength(2);
  });

  test("a Redis that is killed, and comes back empty, loses no job", async () => {
    await using all = await startAll(2, 20);
    const jobs: JobJson[] = [];
    for (let seed = 0; seed < 5; seed++) {
      jobs.push(await all.server.submit({ ...small, num_inference_steps: 20, seed }));
    }
    await isRunning(all.server, jobs[0]!);
    await redis.kill();
    await Bun.sleep(300);
    await redis.start();
    const ended = await Promise.all(jobs.map(({ id }) => all.server.ended(id)));
    expect(ended.map(({ state, images }) => [state, images.length])).toEqual(
      Array(5).fill(["done", 1]),
    );
    expect(imagesIn(all.outputs)).toHaveLength(5);
  }, 30_000);

  // `bun run bench serve --parts workers` does it 20 times.
  test(`kill -9 of three workers at random moments (${seedName})`, async () => {
    const outputs = { workers: outputsFolder(), alone: outputsFolder() };
    const chances = sampled(fc.double({ min: 0, max: 0.999, noNaN: true }), 6);
    const random = () => chances.shift()!;
    const options = { queue: redis.url, killCount: 3, random };
    expect(await killWorkers(outputs, options)).toEqual([]);
    expect(imagesIn(outputs.workers)).toHaveLength(12);
  }, 120_000);
});
