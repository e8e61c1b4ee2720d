/**
 * How machines meet: machine 0 listens on MASTER_PORT, the others say who they are and what they
 * draw, and get NCCL's unique id once all are there and agree. What differs, who does not come, and
 * who comes twice ends the start with a sentence on every machine; nobody waits for ever.
 */
import { connect, createServer, isIPv6, type Server, type Socket } from "node:net";
import { BasedXLError } from "../errors.ts";
import type { MachineEnvironment } from "./environment.ts";
import { Link } from "./link.ts";
import { differenceOf, type Settings } from "./settings.ts";
import { Wire, type WireLimits, wireLimits } from "./wire.ts";

/** What machine 0 decides for all. */
export interface Decisions {
  /** Base64. */
  meetingId: string;
  /** Of the first image. */
  seed: string;
}

export interface MeetingOptions {
  machine: MachineEnvironment;
  settings: Settings;
  /** Asked for on machine 0 alone, when all are there. */
  decide(): Decisions;
  /** Names a machine as messages do. */
  describe(index: number): string;
  signal?: AbortSignal | undefined;
  /** For the others to come. */
  limitMs?: number;
  wire?: WireLimits;
}

export interface Meeting extends Decisions {
  link: Link;
}

/** Changes whenever a message changes its meaning. */
export const protocolVersion = 1;

/**
 * Resolves when all machines are there. Rejects with "rank-failed" where one does not come, or with
 * other settings; "io" for a port that cannot be had; "cancelled" soon after `signal`.
 */
export async function meet(options: MeetingOptions): Promise<Meeting> {
  const attempt = options.machine.index === 0 ? new Host(options) : new Guest(options);
  return await attempt.result();
}

// --- internal ---

const meetingLimitMs = 300_000;
const retryMs = 250;

function failed(message: string): BasedXLError {
  return new BasedXLError("rank-failed", message);
}

/** What both sides share: one outcome, at the latest when time is up. */
abstract class Attempt {
  protected readonly link: Link;
  protected readonly limitMs: number;
  private readonly settled = Promise.withResolvers<Meeting>();
  private readonly timer: ReturnType<typeof setTimeout>;
  protected isOver = false;

  constructor(protected readonly options: MeetingOptions) {
    const { machine, describe, signal, limitMs = meetingLimitMs } = options;
    this.limitMs = limitMs;
    this.link = new Link(machine.index, describe);
    this.timer = setTimeout(() => this.refuse(this.lateness()), limitMs);
    signal?.addEventListener("abort", this.stop);
    if (signal?.aborted) queueMicrotask(this.stop);
  }

  result(): Promise<Meeting> {
    return this.settled.promise;
  }

  /** Why time ran out. */
  protected abstract lateness(): BasedXLError;
  /** Ends all wires; `sentence` is for those at their other end. */
  protected abstract release(sentence: string | null): void;

  protected accept(decisions: Decisions): void {
    if (!this.close()) return;
    this.release(null);
    this.settled.resolve({ ...decisions, link: this.link });
  }

  protected refuse(error: BasedXLError): void {
    if (!this.close()) return;
    this.release(error.message);
    this.settled.reject(error);
  }

  protected wire(socket: Socket, handlers: ConstructorParameters<typeof Wire>[1]): Wire {
    return new Wire(socket, handlers, this.options.wire ?? wireLimits);
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

class Host extends Attempt {
  private readonly server: Server;
  private readonly guests = new Map<number, Wire>();
  private readonly strangers = new Set<Wire>();

  constructor(options: MeetingOptions) {
    super(options);
    const { host, port } = options.machine;
    this.server = createServer((socket) => this.welcome(socket));
    this.server.on("error", (error: NodeJS.ErrnoException) => {
      const why =
        error.code === "EADDRINUSE" ? "it is taken: choose another for all" : (error.code ?? "");
      const sentence = `Port ${port} (of MASTER_PORT) cannot be opened here (${why}).`;
      this.refuse(new BasedXLError("io", sentence));
    });
    const isLocal = host === "localhost" || host.startsWith("127.");
    this.server.listen(port, isLocal ? "127.0.0.1" : isIPv6(host) ? "::" : "0.0.0.0");
  }

  protected lateness(): BasedXLError {
    const { count } = this.options.machine;
    const absent = Array.from({ length: count - 1 }, (_, i) => i + 1).filter(
      (index) => !this.guests.has(index),
    );
    const names = absent.map((index) => this.options.describe(index)).join(", ");
    return failed(
      `Waited ${this.limitMs / 1000} s in vain for ${names}. Is each started with a RANK of its \
own, and does it reach MASTER_ADDR and MASTER_PORT?`,
    );
  }

  protected release(sentence: string | null): void {
    this.server.close();
    for (const wire of this.strangers) void wire.end();
    if (sentence === null) return;
    for (const wire of this.guests.values()) void wire.end({ refused: sentence });
  }

  private welcome(socket: Socket): void {
    let index = 0;
    const wire = this.wire(socket, {
      onMessage: (message) => {
        if (index > 0) this.link.hear(index, message);
        else index = this.admit(message, wire);
      },
      onEnd: (reason) => {
        this.strangers.delete(wire);
        // Before all are there it may come again.
        if (this.isOver && index > 0) this.link.lose(index, reason);
        else if (this.guests.get(index) === wire) this.guests.delete(index);
      },
    });
    this.strangers.add(wire);
  }

  /** Its index; 0 for a stranger, who is sent away. */
  private admit(message: Record<string, unknown>, wire: Wire): number {
    const { count } = this.options.machine;
    const { basedxl, rank, worldSize, settings } = message;
    const isOurs = typeof basedxl === "number" && typeof rank === "number" && rank >= 0;
    if (!isOurs || !Number.isInteger(rank) || this.isOver) {
      void wire.end({ refused: "This is BasedXL's machine 0, and it expects no such visitor." });
      return 0;
    }
    this.strangers.delete(wire);
    const twice = this.guests.has(rank) || rank === 0;
    if (!twice) this.guests.set(rank, wire);
    const problem = twice
      ? `Two processes say that they are RANK ${rank}: each needs a number of its own.`
      : this.objection(rank, basedxl, worldSize, settings);
    if (problem !== null) {
      this.refuse(failed(problem));
      if (twice) void wire.end({ refused: problem });
    } else if (this.guests.size === count - 1) this.begin();
    return rank;
  }

  private objection(
    rank: number,
    version: number,
    worldSize: unknown,
    settings: unknown,
  ): string | null {
    const { count } = this.options.machine;
    if (version !== protocolVersion) {
      return `Machine ${rank} and machine 0 run different versions of BasedXL: install the same.`;
    }
    if (worldSize !== count || rank >= count) {
      return `RANK ${rank} counts ${worldSize} processes and RANK 0 counts ${count}: WORLD_SIZE \
must be the same for all.`;
    }
    const theirs = Object.entries(settings ?? {}).map(([name, value]) => [name, String(value)]);
    return differenceOf(this.options.settings, Object.fromEntries(theirs), rank);
  }

  private begin(): void {
    let decisions: Decisions;
    try {
      decisions = this.options.decide();
    } catch (error) {
      this.refuse(error as BasedXLError);
      return;
    }
    for (const [index, wire] of this.guests) {
      this.link.add(index, wire);
      wire.send({ welcome: decisions });
    }
    this.accept(decisions);
  }
}

class Guest extends Attempt {
  private lastError = "no answer";
  private connected: Wire | null = null;
  private socket: Socket | null = null;

  constructor(options: MeetingOptions) {
    super(options);
    this.dial();
  }

  protected lateness(): BasedXLError {
    const { host, port } = this.options.machine;
    const seconds = this.limitMs / 1000;
    if (this.connected) {
      return failed(`Machine 0 is there, but not all others came within ${seconds} s.`);
    }
    return failed(
      `Machine 0 did not answer at ${host}:${port} within ${seconds} s (${this.lastError}). Is it \
started, and are MASTER_ADDR and MASTER_PORT right?`,
    );
  }

  protected release(sentence: string | null): void {
    if (sentence === null) return;
    if (this.connected) void this.connected.end();
    else this.socket?.destroy();
  }

  private dial(): void {
    if (this.isOver) return;
    const { host, port, index, count } = this.options.machine;
    const socket = connect({ host, port });
    this.socket = socket;
    const retry = (error: NodeJS.ErrnoException) => {
      this.lastError = error.code ?? error.message;
      socket.destroy();
      setTimeout(() => this.dial(), retryMs);
    };
    socket.once("error", retry);
    socket.once("connect", () => {
      socket.off("error", retry);
      const wire = this.wire(socket, {
        onMessage: (message) => this.hear(message),
        onEnd: (reason) => this.lose(reason),
      });
      this.connected = wire;
      this.link.add(0, wire);
      const { settings } = this.options;
      wire.send({ basedxl: protocolVersion, rank: index, worldSize: count, settings });
    });
  }

  private hear(message: Record<string, unknown>): void {
    const { refused, welcome } = message;
    const { meetingId, seed } = (welcome ?? {}) as Partial<Decisions>;
    if (this.isOver) this.link.hear(0, message);
    else if (typeof refused === "string") this.refuse(failed(refused));
    else if (typeof meetingId === "string" && typeof seed === "string") {
      this.accept({ meetingId, seed });
    } else this.refuse(failed("Machine 0 answered what no BasedXL of this version does."));
  }

  private lose(reason: string): void {
    if (this.isOver) this.link.lose(0, reason);
    else this.refuse(failed(`Machine 0 went away before all machines had come (${reason}).`));
  }
}
