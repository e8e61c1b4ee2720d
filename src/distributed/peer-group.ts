/**
 * The control connections of a process while an image is generated: a process that fails reports
 * it, one that disappears is noticed, and the others stop with a sentence that names it. Process 0
 * has a connection to each of the others and forwards what all must know.
 */
import { BasedXLError, escaped } from "../errors.ts";
import type { Connection, Message } from "./connection.ts";

export class PeerGroup {
  private readonly controller = new AbortController();
  private readonly connections = new Map<number, Connection>();
  private readonly done = new Set<number>();
  private isOver = false;
  /** The error that another process reported; null while all are healthy. */
  failure: BasedXLError | null = null;

  /** `describe` names a process as messages do, such as "Process 1 (rank 1)". */
  constructor(
    readonly index: number,
    private readonly describe: (index: number) => string,
  ) {}

  /** Aborted when this process must stop. */
  get signal(): AbortSignal {
    return this.controller.signal;
  }

  add(index: number, connection: Connection): void {
    this.connections.set(index, connection);
  }

  /** A message of process `index`. */
  receive(index: number, message: Message): void {
    if (message.done === true) this.done.add(index);
    const { failed, ended } = message;
    if (typeof failed === "string") this.stop(`${this.describe(index)} failed: ${shown(failed)}`);
    // Only process 0 reports how another one ended.
    else if (typeof ended === "string" && index === 0) this.stop(shown(ended));
  }

  /** The connection to process `index` ended. */
  lose(index: number, reason: string): void {
    this.connections.delete(index);
    if (this.done.has(index) || this.isOver) return;
    this.stop(
      `${this.describe(index)} went away before the image was done (${reason}). \
No image was written.`,
    );
  }

  /** This process has finished its share. */
  async finish(): Promise<void> {
    await this.endAll({ done: true });
  }

  /** This process gives up for `reason`, a sentence, which the others are sent. */
  async fail(reason: string): Promise<void> {
    const isFirst = this.index === 0;
    const ended = this.failure?.message ?? `${this.describe(0)} failed: ${reason}`;
    await this.endAll(isFirst ? { ended } : { failed: reason });
  }

  // --- internal ---

  private stop(sentence: string): void {
    if (this.failure !== null) return;
    this.failure = new BasedXLError("rank-failed", sentence);
    if (this.index === 0) {
      for (const connection of this.connections.values()) connection.send({ ended: sentence });
    }
    this.controller.abort();
  }

  private async endAll(last: Message): Promise<void> {
    this.isOver = true;
    await Promise.all([...this.connections.values()].map((connection) => connection.end(last)));
  }
}

/** A sentence from the network, as it may reach a terminal; never empty. */
export function shown(sentence: string): string {
  return escaped(sentence.trim() || "No reason was given.", 1000);
}
