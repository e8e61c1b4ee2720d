/**
 * Jobs on disk, in SQLite beside the images: what a server needs to go on where another one ended.
 * A job is written before it is answered, and what becomes of it before it is reported, but where
 * the disk refuses (statements.ts). One server at a time owns the file.
 */
import { Database, type SQLQueryBindings } from "bun:sqlite";
import * as v from "valibot";
import { BasedXLError, escaped } from "../../errors.ts";
import { specOf, specText } from "./spec-text.ts";
import { Statements } from "./statements.ts";
import { type JobEvent, type JobFilter, type JobImage, type JobView, jobStates } from "./types.ts";

/** What is kept of a job: `JobView` without what changes by the second. */
export type StoredJob = Omit<JobView, "position" | "progress">;

export class JobStore {
  /** Who is late while the server stops finds nothing. */
  private isClosed = false;

  private readonly statements: Statements;
  /** Jobs whose rows have an earlier state, since the disk refused the newer one. */
  private readonly newer = new Map<string, StoredJob>();
  /** The first id of an event that is not reserved. */
  private freeEventId = 0;

  private constructor(
    private readonly database: Database,
    onRefusal: (message: string) => void,
  ) {
    this.statements = new Statements(database, onRefusal);
  }

  /**
   * Opens or makes the file. Throws "io" where another server has it, or it cannot be written.
   * `onRefusal` is called where the disk takes no more while jobs run.
   */
  static open(path: string, onRefusal: (message: string) => void = () => {}): JobStore {
    try {
      const database = new Database(path, { create: true, strict: true });
      // The lock goes with the process, however it ends.
      database.run("PRAGMA locking_mode = EXCLUSIVE");
      database.run("PRAGMA journal_mode = WAL");
      database.run("PRAGMA synchronous = NORMAL");
      // In KiB; the default would fill with old jobs for as long as the server runs.
      database.run("PRAGMA cache_size = -128");
      database.run("PRAGMA foreign_keys = ON");
      if (!isWhole(database)) throw damaged();
      database.transaction(() => migrate(database)).immediate();
      if (!Bun.deepEquals(schemaOf(database), madeSchema())) throw damaged();
      return new JobStore(database, onRefusal);
    } catch (error) {
      const { code = "", message } = error as Error & { code?: string };
      const why = /BUSY|LOCKED/.test(code) ? "another server uses it" : message;
      throw new BasedXLError(
        "io",
        `The jobs in ${escaped(path, 300)} cannot be opened: ${escaped(why, 300)}.`,
      );
    }
  }

  /** Throws "io" where it cannot be kept. */
  add(job: StoredJob): void {
    this.statements.run(
      `INSERT INTO jobs (id, state, priority, client, spec, created_at, attempts)
       VALUES ($id, $state, $priority, $client, $spec, $createdAt, 0)`,
      {
        ...{ id: job.id, state: job.state, createdAt: job.createdAt },
        priority: job.spec.priority ?? 0,
        client: job.spec.client,
        spec: specText(job.spec),
      },
    );
  }

  /** Writes what may have changed. */
  update(job: StoredJob): void {
    const { id, state, startedAt, endedAt, attempts, warnings, error } = job;
    const changes = this.statements.note(
      `UPDATE jobs SET state = $state, started_at = $startedAt, ended_at = $endedAt,
       attempts = $attempts, warnings = $warnings, error = $error WHERE id = $id`,
      {
        ...{ id, state, startedAt, endedAt, attempts },
        warnings: JSON.stringify(warnings),
        error: error && JSON.stringify(error),
      },
    );
    if (changes === null) this.newer.set(id, job);
  }

  /** False where the image is there already. */
  addImage(jobId: string, image: JobImage): boolean {
    const changes = this.statements.note(
      `INSERT OR IGNORE INTO images (job_id, position, seed, width, height, file, bytes, type)
       VALUES ($jobId, $index, $seed, $width, $height, $file, $bytes, $type)`,
      { jobId, ...image },
    );
    return changes !== 0;
  }

  /** Whether a job that is kept has an image of this name. */
  hasFile(file: string): boolean {
    if (this.isClosed) return false;
    return this.database.query("SELECT 1 FROM images WHERE file = $file").get({ file }) !== null;
  }

  /** Forgets the images of a file that was deleted. */
  removeFile(file: string): void {
    this.statements.note("DELETE FROM images WHERE file = $file", { file });
  }

  get(id: string): StoredJob | null {
    if (this.isClosed) return null;
    const newer = this.newerJobs().get(id);
    if (newer !== undefined) return newer;
    const row = this.database.query("SELECT * FROM jobs WHERE id = $id").get({ id });
    return row === null ? null : (this.jobsOf([row as JobRow])[0] ?? null);
  }

  /** The newest first. */
  list({ state, client, limit = 100, before }: JobFilter): StoredJob[] {
    if (this.isClosed) return [];
    const conditions = [
      ...(state === undefined ? [] : ["state = $state"]),
      ...(client === undefined ? [] : ["client = $client"]),
      ...(before === undefined ? [] : ["id < $before"]),
    ];
    const where = conditions.length === 0 ? "" : `WHERE ${conditions.join(" AND ")}`;
    const given = { state, client, before };
    const values = Object.fromEntries(Object.entries(given).filter(([, each]) => each != null));
    // First: where they can be written now, the rows are those.
    const newer = this.newerJobs();
    const rows = this.database
      .query(`SELECT * FROM jobs ${where} ORDER BY id DESC LIMIT $limit`)
      .all({ ...values, limit } as SQLQueryBindings & object);
    return this.jobsOf(rows as JobRow[]).map((job) => newer.get(job.id) ?? job);
  }

  /**
   * Jobs that have not ended, in the order in which they came. Those that cannot be read, as of
   * another version, have failed.
   */
  unfinished(): StoredJob[] {
    const rows = this.database
      .query("SELECT * FROM jobs WHERE state IN ('queued', 'running') ORDER BY id")
      .all() as JobRow[];
    const jobs = this.jobsOf(rows);
    const readable = new Set(jobs.map(({ id }) => id));
    const message = "This version of the server cannot read the job.";
    const error = JSON.stringify({ code: "unreadable", message });
    for (const { id } of rows) {
      if (readable.has(id)) continue;
      const failed = "UPDATE jobs SET state = 'failed', error = $error WHERE id = $id";
      this.statements.note(failed, { id, error });
    }
    return jobs;
  }

  addEvent({ id, jobId, at, ...event }: JobEvent): void {
    const sql = "INSERT INTO events (id, job_id, at, event) VALUES ($id, $jobId, $at, $event)";
    this.statements.note(sql, { ...{ id, jobId, at }, event: JSON.stringify(event) });
  }

  /** Kept events of a job, or of all, after `afterId`, the first ones. */
  events(jobId: string | "all", afterId: number, limit: number): JobEvent[] {
    const ofJob = jobId === "all" ? "" : "AND job_id = $jobId";
    const values = { afterId, limit, ...(jobId !== "all" && { jobId }) };
    const rows = this.database
      .query(`SELECT * FROM events WHERE id > $afterId ${ofJob} ORDER BY id LIMIT $limit`)
      .all(values) as { id: number; job_id: string; at: number; event: string }[];
    return rows.flatMap(({ id, job_id, at, event }) => {
      const found = readable(() => JSON.parse(event));
      return found === null ? [] : [{ id, jobId: job_id, at, ...found } as JobEvent];
    });
  }

  /** A range of ids of events that no server before has given out. */
  reserveEventIds(count: number): { first: number; end: number } {
    const name = "event";
    if (this.freeEventId === 0) {
      const sql = "SELECT value FROM counters WHERE name = $name";
      this.freeEventId = (this.database.query(sql).get({ name }) as { value: number }).value;
    }
    const first = this.freeEventId;
    const end = first + count;
    this.statements.note("UPDATE counters SET value = $end WHERE name = $name", { end, name });
    this.freeEventId = end;
    return { first, end };
  }

  /** Forgets the oldest jobs that have ended, beyond `keep`. */
  prune(keep: number): void {
    this.statements.note(
      `DELETE FROM jobs WHERE state NOT IN ('queued', 'running') AND id < (
         SELECT id FROM jobs WHERE state NOT IN ('queued', 'running')
         ORDER BY id DESC LIMIT 1 OFFSET $last)`,
      { last: keep - 1 },
    );
  }

  close(): void {
    this.isClosed = true;
    this.statements.settle();
    this.database.close();
  }

  // --- internal ---

  private newerJobs(): ReadonlyMap<string, StoredJob> {
    if (this.newer.size > 0 && this.statements.settle()) this.newer.clear();
    return this.newer;
  }

  /** Those that can be read. */
  private jobsOf(rows: readonly JobRow[]): StoredJob[] {
    return rows.flatMap((row) => readable(() => this.jobOf(row)) ?? []);
  }

  private jobOf(row: JobRow): StoredJob {
    const images = this.database
      .query(
        `SELECT position AS "index", seed, width, height, file, bytes, type FROM images
         WHERE job_id = $id ORDER BY position`,
      )
      .all({ id: row.id }) as JobImage[];
    return {
      ...{ id: row.id, state: v.parse(stateSchema, row.state), createdAt: row.created_at },
      ...{ startedAt: row.started_at, endedAt: row.ended_at, attempts: row.attempts, images },
      spec: specOf(row.spec),
      warnings: v.parse(warningsSchema, JSON.parse(row.warnings)),
      error: row.error === null ? null : v.parse(errorSchema, JSON.parse(row.error)),
    };
  }
}

// --- internal ---

interface JobRow {
  id: string;
  state: string;
  spec: string;
  created_at: number;
  started_at: number | null;
  ended_at: number | null;
  attempts: number;
  warnings: string;
  error: string | null;
}

const stateSchema = v.picklist(jobStates);
const warningsSchema = v.array(v.string());
const errorSchema = v.object({ code: v.string(), message: v.string() });

/** Null where a row's texts are none that this version writes. */
function readable<T>(read: () => T): T | null {
  try {
    return read();
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof v.ValiError) return null;
    throw error;
  }
}

function damaged(): Error {
  return new Error("the file is damaged; move it away to begin anew");
}

/** What tables and indexes are made of. */
function schemaOf(database: Database): unknown[] {
  return database.query("SELECT type, name, sql FROM sqlite_schema ORDER BY name").all();
}

function madeSchema(): unknown[] {
  using database = new Database(":memory:");
  migrate(database);
  return schemaOf(database);
}

/**
 * False for a file of which pages are lost, for instance by a dying disk, or whose indexes lead
 * nowhere.
 */
function isWhole(database: Database): boolean {
  const row = database.query("PRAGMA integrity_check(1)").get() as { integrity_check: string };
  return row.integrity_check === "ok";
}

const version = 1;

function migrate(database: Database): void {
  const { user_version: found } = database.query("PRAGMA user_version").get() as {
    user_version: number;
  };
  if (found > version) throw new Error("a newer version of the program wrote it");
  if (found === version) return;
  database.run(`
    CREATE TABLE jobs (
      id TEXT PRIMARY KEY, state TEXT NOT NULL, priority INTEGER NOT NULL, client TEXT NOT NULL,
      spec TEXT NOT NULL, created_at INTEGER NOT NULL, started_at INTEGER, ended_at INTEGER,
      attempts INTEGER NOT NULL, warnings TEXT NOT NULL DEFAULT '[]', error TEXT
    ) STRICT`);
  database.run("CREATE INDEX jobs_by_state ON jobs (state, id)");
  database.run(`
    CREATE TABLE images (
      job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, position INTEGER NOT NULL,
      seed TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL, file TEXT NOT NULL,
      bytes INTEGER NOT NULL, type TEXT NOT NULL, PRIMARY KEY (job_id, position)
    ) STRICT`);
  database.run("CREATE INDEX images_by_file ON images (file)");
  database.run(`
    CREATE TABLE events (
      id INTEGER PRIMARY KEY, job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
      at INTEGER NOT NULL, event TEXT NOT NULL
    ) STRICT`);
  database.run("CREATE INDEX events_by_job ON events (job_id, id)");
  database.run("CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT");
  database.run("INSERT INTO counters VALUES ('event', 1)");
  database.run(`PRAGMA user_version = ${version}`);
}
