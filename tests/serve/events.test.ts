/**
 * The log of events, read by clients that stay for long.
 */
import { expect, test } from "bun:test";
import { getEventListeners } from "node:events";
import { join } from "node:path";
import { EventLog } from "../../src/serve/jobs/events.ts";
import { JobStore, type StoredJob } from "../../src/serve/jobs/store.ts";
import { outputsFolder } from "../support/serve-fixture.ts";

test("a reader that waits for each event leaves nothing at its signal", async () => {
  const store = JobStore.open(join(outputsFolder(), "jobs.sqlite"));
  const log = new EventLog(store);
  const { signal } = new AbortController();
  const reader = log.read("all", log.lastId, () => true, signal);
  for (let position = 0; position < 20; position++) {
    const next = reader.next();
    await Bun.sleep(0);
    log.add("job", { type: "queued", position });
    expect((await next).value).toMatchObject({ position });
    expect(getEventListeners(signal, "abort")).toEqual([]);
  }
  log.close();
  expect((await reader.next()).done).toBe(true);
  store.close();
});

test("a reader whose place is of another log begins with what comes", async () => {
  const store = JobStore.open(join(outputsFolder(), "jobs.sqlite"));
  const log = new EventLog(store);
  const reader = log.read("all", log.lastId + 5000, () => true);
  const next = reader.next();
  log.add("job", { type: "queued", position: 0 });
  expect((await next).value).toMatchObject({ position: 0 });
  log.close();
  store.close();
});

test("a log holds a bounded number of events; what matters is read from the store", async () => {
  const store = JobStore.open(join(outputsFolder(), "jobs.sqlite"));
  const log = new EventLog(store);
  const jobCount = 300;
  const data = new Uint8Array(10);
  for (let number = 0; number < jobCount; number++) {
    const id = `job-${number}`;
    store.add({ ...storedJob, id });
    log.add(id, { type: "start", layout: "" });
    for (let step = 1; step <= 4; step++) log.add(id, { ...progress, step });
    log.add(id, { type: "preview", index: 0, step: 4, type_: "image/jpeg", data });
    log.add(id, { type: "done" });
  }
  const typesOf = async (id: string) => {
    const types: string[] = [];
    for await (const { type } of log.read(id, 0, () => false)) types.push(type);
    return types;
  };
  expect(log.heldCount).toBeLessThanOrEqual(1000);
  expect(await typesOf("job-0")).toEqual(["start", "done"]);
  const steps = Array.from({ length: 4 }, () => "progress");
  expect(await typesOf(`job-${jobCount - 1}`)).toEqual(["start", ...steps, "preview", "done"]);
  log.close();
  store.close();
});

const progress = {
  type: "progress",
  ...{ stage: "denoise", steps: 4, secondsPerStep: null, secondsLeft: null },
} as const;

const storedJob: StoredJob = {
  ...{ id: "", state: "running", createdAt: 0, startedAt: null, endedAt: null, attempts: 1 },
  spec: { request: {}, client: "a", dialect: "own" },
  ...{ images: [], warnings: [], error: null },
};
