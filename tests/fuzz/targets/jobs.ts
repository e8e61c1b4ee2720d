/**
 * The job store: texts in its rows, and the file itself with bytes changed.
 */
import type { Database } from "bun:sqlite";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { specText } from "../../../src/serve/jobs/spec-text.ts";
import { JobStore } from "../../../src/serve/jobs/store.ts";
import { mutateBytes, mutateJson } from "../mutate.ts";
import { target } from "../target.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-fuzz-"));
const path = join(folder, "jobs.sqlite");
const damaged = join(folder, "damaged.sqlite");
const spec = { request: { prompt: "a", stepCount: 4 }, client: "test", dialect: "own" } as never;
const store = JobStore.open(path);
for (const id of ["1", "2"]) {
  store.add({
    ...{ id, state: "queued", createdAt: 1, startedAt: null, endedAt: null, attempts: 0 },
    ...{ images: [], spec, warnings: ["a"], error: null },
  } as never);
}
store.addEvent({ id: 1, jobId: "1", at: 1, kind: "state", state: "queued" } as never);
store.close();
const seed = readFileSync(path);
const texts = {
  ...{ spec: JSON.parse(specText(spec)), warnings: ["a"], error: { code: "io", message: "b" } },
  state: "queued",
};
const columns = Object.keys(texts) as (keyof typeof texts)[];
/** Stays open: opening a file for each case takes most of the time. */
const kept = JobStore.open(path);
const { database } = kept as unknown as { database: Database };

/** Of one row and column: what reads it. */
const readings = {
  unfinished: (opened: JobStore) => opened.unfinished(),
  list: (opened: JobStore) => opened.list({}),
};

export const storeTarget = target(
  "jobs",
  (random) => {
    if (random.once(60)) return { bytes: mutateBytes(random, seed) };
    if (random.once(10)) return { event: mutateJson(random, { kind: "state", state: "queued" }) };
    const column = random.pick(columns);
    const keys = ["request", "inputs", "dialectData", "format"];
    const text = mutateJson(random, texts[column], keys);
    return { row: { column, text, reading: random.pick(["unfinished", "list"] as const) } };
  },
  ({ bytes, event, row }) => {
    if (bytes !== undefined) return readFile(bytes);
    if (event !== undefined) {
      database.run("UPDATE events SET event = ?", [event]);
      return void kept.events("all", 0, 10);
    }
    const { column, text, reading } = row!;
    database.run(`UPDATE jobs SET ${column} = ? WHERE id = '1'`, [text]);
    readings[reading](kept);
    // What is unfinished and cannot be read is noted as failed: in other columns too.
    database.run("UPDATE jobs SET spec = ?, warnings = '[]', error = NULL, state = 'queued'", [
      specText(spec),
    ]);
  },
);

function readFile(bytes: Uint8Array): void {
  for (const ending of ["", "-wal", "-shm"]) rmSync(damaged + ending, { force: true });
  writeFileSync(damaged, bytes);
  const opened = JobStore.open(damaged);
  try {
    for (const read of Object.values(readings)) read(opened);
    opened.events("all", 0, 10);
  } finally {
    opened.close();
  }
}
