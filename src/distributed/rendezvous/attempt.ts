/**
 * What coordinator and client share: one outcome, at the latest when time is up.
 */
import type { Socket } from "node:net";
import { BasedXLError } from "../../errors.ts";
import { Connection, type ConnectionHandlers, connectionLimits } from "../connection.ts";
import { PeerGroup } from "../peer-group.ts";
import type { Decisions, RendezvousOptions, RendezvousResult } from "./protocol.ts";

const limitMsDefault = 300_000;

export abstract class Attempt {
  protected readonly peers: PeerGroup;
  protected readonly limitMs: number;
  private readonly settled = Promise.withResolvers<RendezvousResult>();
  private readonly timer: ReturnType<typeof setTimeout>;
  protected isOver = false;

  constructor(protected readonly options: RendezvousOptions) {
    const { describe, signal, limitMs = limitMsDefault } = options;
    this.limitMs = limitMs;
    this.peers = new PeerGroup(options.process.index, describe);
    this.timer = setTimeout(() => this.refuse(this.lateness()), limitMs);
    signal?.addEventListener("abort", this.stop);
    if (signal?.aborted) queueMicrotask(this.stop);
  }

  result(): Promise<RendezvousResult> {
    return this.settled.promise;
  }

  /** The error of a wait that ran out of time. */
  protected abstract lateness(): BasedXLError;
  /** Ends all connections; `sentence` is sent to the other ends. */
  protected abstract release(sentence: string | null): void;

  protected accept(decisions: Decisions): void {
    if (!this.close()) return;
    this.release(null);
    this.settled.resolve({ ...decisions, peers: this.peers });
  }

  protected refuse(error: BasedXLError): void {
    if (!this.close()) return;
    this.release(error.message);
    this.settled.reject(error);
  }

  protected connection(socket: Socket, handlers: ConnectionHandlers): Connection {
    return new Connection(socket, handlers, this.options.connection ?? connectionLimits);
  }

  private readonly stop = () => {
    this.refuse(new BasedXLError("cancelled", "Stopped before the image was done."));
  };

  private close(): boolean {
    if (this.isOver) return false;
    this.isOver = true;
    clearTimeout(this.timer);
    this.options.signal?.removeEventListener("abort", this.stop);
    return true;
  }
}
