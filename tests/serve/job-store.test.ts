/**
 * The job store while its disk is full: what it answers is what was noted last. And files of it
 * that are damaged.
 */
import { Database } from "bun:sqlite";
import { describe, expect, spyOn, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
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

describe("a damaged file is refused", () => {
  /** The job would not be found among those that are queued. */
  const loseRow = (path: string) => {
    using database = new Database(path);
    const sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'jobs_by_state'";
    const { rootpage } = database.query(sql).get() as { rootpage: number };
    database.close();
    const bytes = readFileSync(path);
    const at = bytes.indexOf("queued", 4096 * (rootpage - 1));
    expect(at).toBeLessThan(4096 * rootpage);
    bytes.write("queuef", at);
    writeFileSync(path, bytes);
  };
  const change = (sql: string) => (path: string) => {
    using database = new Database(path);
    database.run(sql);
  };

  test.each([
    ["an index has another state of a job", loseRow],
    ["a column has another name", change("ALTER TABLE images RENAME COLUMN bytes TO bites")],
    ["a table is gone", change("DROP TABLE counters")],
    ["an index is gone", change("DROP INDEX events_by_job")],
  ])("%s", (_, damage) => {
    const folder = mkdtempSync(join(tmpdir(), "basedxl-job-store-"));
    const path = join(folder, "jobs.sqlite");
    try {
      const store = JobStore.open(path);
      store.add(job);
      store.close();
      damage(path);
      expect(() => JobStore.open(path)).toThrow(/ the file is damaged; move it away to begin anew/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
