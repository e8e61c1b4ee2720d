/**
 * The ties of a machine to the others while they draw: who fails says so, who goes away is noticed,
 * and the others stop with a sentence that names it. Machine 0 has a wire to each, the others have
 * one to machine 0, which passes on what they must know.
 */
import { BasedXLError } from "../errors.ts";
import type { Wire } from "./wire.ts";

export class Link {
  private readonly controller = new AbortController();
  private readonly wires = new Map<number, Wire>();
  private readonly done = new Set<number>();
  private isOver = false;
  /** Why the others' end stops this machine; null while nothing does. */
  failure: BasedXLError | null = null;

  /** `describe` names a machine as messages do, such as "Machine 1 (rank 1)". */
  constructor(
    readonly index: number,
    private readonly describe: (index: number) => string,
  ) {}

  /** Aborted when this machine must stop. */
  get signal(): AbortSignal {
    return this.controller.signal;
  }

  add(index: number, wire: Wire): void {
    this.wires.set(index, wire);
  }

  /** What machine `index` says. */
  hear(index: number, message: Record<string, unknown>): void {
    if (message.done === true) this.done.add(index);
    const { failed, ended } = message;
    if (typeof failed === "string") this.stop(`${this.describe(index)} failed: ${cut(failed)}`);
    // Machine 0 tells who it was.
    else if (typeof ended === "string") this.stop(cut(ended));
  }

  /** Machine `index` cannot be heard any more. */
  lose(index: number, reason: string): void {
    this.wires.delete(index);
    if (this.done.has(index) || this.isOver) return;
    this.stop(
      `${this.describe(index)} went away before the image was done (${reason}). \
No image was written.`,
    );
  }

  /** This machine has done its part. */
  async finish(): Promise<void> {
    await this.endAll({ done: true });
  }

  /** This machine gives up for `reason`, a sentence; the others are told. */
  async fail(reason: string): Promise<void> {
    const isFirst = this.index === 0;
    const ended = this.failure?.message ?? `${this.describe(0)} failed: ${reason}`;
    await this.endAll(isFirst ? { ended } : { failed: reason });
  }

  // --- internal ---

  private stop(sentence: string): void {
    if (this.failure !== null) return;
    this.failure = new BasedXLError("rank-failed", sentence);
    if (this.index === 0) for (const wire of this.wires.values()) wire.send({ ended: sentence });
    this.controller.abort();
  }

  private async endAll(last: Record<string, unknown>): Promise<void> {
    this.isOver = true;
    await Promise.all([...this.wires.values()].map((wire) => wire.end(last)));
  }
}

// --- internal ---

function cut(sentence: string): string {
  return sentence.length > 1000 ? `${sentence.slice(0, 1000)} ...` : sentence;
}
