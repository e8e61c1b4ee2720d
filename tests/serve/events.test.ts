/**
 * The log of events, read by clients that stay for long.
 */
import { expect, test } from "bun:test";
import { getEventListeners } from "node:events";
import { join } from "node:path";
import { EventLog } from "../../src/serve/jobs/events.ts";
import { JobStore } from "../../src/serve/jobs/store.ts";
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
