/**
 * Statements that change the job store. A disk that is full or fails must not stop jobs that run:
 * what is only noted waits in memory where it is refused, and is tried again, in order, before the
 * next statement. After a server that ended meanwhile the rows are those of a moment before, and
 * the next one runs such jobs again.
 */
import type { Database, SQLQueryBindings } from "bun:sqlite";
import { BasedXLError, escaped } from "../../errors.ts";

type Values = Record<string, unknown>;

export class Statements {
  private readonly refused: { sql: string; values: Values }[] = [];

  constructor(
    private readonly database: Database,
    /** Called where the first of several is refused. */
    private readonly onRefusal: (message: string) => void,
  ) {}

  /** Returns the number of rows that changed. Throws "io" where the disk refuses. */
  run(sql: string, values: Values): number {
    try {
      this.retry();
      return this.execute(sql, values);
    } catch (error) {
      const message = escaped((error as Error).message, 300);
      throw new BasedXLError("io", `The server's jobs cannot be written: ${message}.`);
    }
  }

  /** As `run`; null where it has to wait. */
  note(sql: string, values: Values): number | null {
    try {
      return this.run(sql, values);
    } catch (error) {
      if (this.refused.length === 0) this.onRefusal((error as Error).message);
      // The caller may change them.
      this.refused.push({ sql, values: { ...values } });
      return null;
    }
  }

  /** Tries those that wait; whether none is left. */
  settle(): boolean {
    try {
      this.retry();
      return true;
    } catch {
      return false;
    }
  }

  // --- internal ---

  private retry(): void {
    for (let next = this.refused[0]; next !== undefined; next = this.refused[0]) {
      this.execute(next.sql, next.values);
      this.refused.shift();
    }
  }

  private execute(sql: string, values: Values): number {
    return this.database.query(sql).run(values as SQLQueryBindings & object).changes;
  }
}
