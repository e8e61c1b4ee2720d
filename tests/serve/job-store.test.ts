/**
 * The job store while its disk is full: what it answers is what was noted last.
 */
import { Database } from "bun:sqlite";
import { expect, spyOn, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { JobStore, type StoredJob } from "../../src/serve/jobs/store.ts";

const job: StoredJob = {
  ...{ id: "1", state: "queued", createdAt: 1, startedAt: null, endedAt: null, attempts: 0 },
  spec: { request: { prompt: "a" }, client: "c", dialect: "own" },
  ...{ images: [], warnings: [], error: null },
};

test("jobs have their last state when the disk is full, and when it no longer is", () => {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-job-store-"));
  const store = JobStore.open(join(folder, "jobs.sqlite"));
  const { query } = Database.prototype;
  let isFull = false;
  const disk = spyOn(Database.prototype, "query").mockImplementation(function (
    this: Database,
    sql: string,
  ) {
    if (isFull && !sql.startsWith("SELECT")) throw new Error("database or disk is full");
    return query.call(this, sql);
  } as typeof query);
  try {
    store.add(job);
    isFull = true;
    store.update({ ...job, state: "done", endedAt: 2 });
    expect(store.get("1")?.state).toBe("done");
    expect(store.list({}).map(({ state }) => state)).toEqual(["done"]);
    isFull = false;
    expect(store.list({}).map(({ state }) => state)).toEqual(["done"]);
    expect(store.list({ state: "done" })).toHaveLength(1);
  } finally {
    disk.mockRestore();
    store.close();
    rmSync(folder, { recursive: true });
  }
});
