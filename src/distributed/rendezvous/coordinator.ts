/**
 * Process 0 at the rendezvous: listens, admits the others, and decides for all.
 */
import { createServer, type Server, type Socket } from "node:net";
import { BasedXLError } from "../../errors.ts";
import type { Connection, Message } from "../connection.ts";
import { differenceOf } from "../settings.ts";
import { Attempt } from "./attempt.ts";
import { isLoopback, listenAddress } from "./listen-address.ts";
import {
  type Challenge,
  type Decisions,
  decisionsOf,
  type Hello,
  helloOf,
  protocolVersion,
  type RendezvousOptions,
  rankFailed,
} from "./protocol.ts";
import { isProof, newNonce, newSecret, proofOf, secretVariable } from "./secret.ts";

/** Connections without a hello: the oldest is closed for one more, and each after a while. */
const visitorCountMax = 64;
const helloLimitMs = 10_000;
/** Heartbeats before the hello: a process sends one every few seconds. */
const heartbeatCountMax = 10;
/** Refusals that are reported: a stranger must not fill the terminal. */
const reportCountMax = 10;

type Answer = Challenge & { basedxl: number };

interface Member {
  connection: Connection;
  nonce: string;
}

export class Coordinator extends Attempt {
  private readonly server: Server;
  private secret: string | undefined;
  private readonly members = new Map<number, Member>();
  private readonly visitors = new Set<Connection>();
  private lastRefusal: string | null = null;
  private reportCount = 0;

  constructor(options: RendezvousOptions) {
    super(options);
    const { host, port } = options.process;
    this.secret = options.secret;
    this.server = createServer((socket) => this.welcome(socket));
    this.server.on("error", (error: NodeJS.ErrnoException) => {
      const why =
        error.code === "EADDRINUSE" ? "it is taken: choose another for all" : (error.code ?? "");
      const sentence = `Port ${port} (of MASTER_PORT) cannot be opened here (${why}).`;
      this.refuse(new BasedXLError("io", sentence));
    });
    void listenAddress(host).then((address) => this.listen(address));
  }

  protected lateness(): BasedXLError {
    const { count } = this.options.process;
    const absent = Array.from({ length: count - 1 }, (_, i) => i + 1).filter(
      (index) => !this.members.has(index),
    );
    const names = absent.map((index) => this.options.describe(index)).join(", ");
    const refused = this.lastRefusal === null ? "" : ` Sent away: ${this.lastRefusal}`;
    return rankFailed(
      `Waited ${this.limitMs / 1000} s in vain for ${names}. Is each started with a RANK of its \
own, and does it reach MASTER_ADDR and MASTER_PORT?${refused}`,
    );
  }

  protected release(sentence: string | null): void {
    this.server.close();
    for (const connection of this.visitors) void connection.end();
    if (sentence === null) return;
    for (const { connection } of this.members.values()) void connection.end({ refused: sentence });
  }

  private listen(address: string): void {
    if (this.isOver) return;
    if (this.secret === undefined && !isLoopback(address)) {
      this.secret = newSecret();
      this.options.onSecret?.(this.secret);
    }
    this.server.listen(this.options.process.port, address);
  }

  private welcome(socket: Socket): void {
    if (this.isOver) return void socket.destroy();
    const [oldest] = this.visitors;
    if (oldest && this.visitors.size >= visitorCountMax) this.drop(oldest);
    const challenge = newNonce();
    let index = 0;
    let heartbeatCount = 0;
    const connection = this.connection(socket, {
      onMessage: (message) => {
        if (index > 0) this.peers.receive(index, message);
        else index = this.admit(message, connection, challenge);
      },
      onHeartbeat: () => {
        heartbeatCount += 1;
        if (heartbeatCount > heartbeatCountMax) this.drop(connection);
      },
      onEnd: (reason) => {
        this.visitors.delete(connection);
        // Before all are there it may come again.
        if (this.isOver && index > 0) this.peers.lose(index, reason);
        else if (this.members.get(index)?.connection === connection) this.members.delete(index);
      },
    });
    this.visitors.add(connection);
    setTimeout(() => this.drop(connection), helloLimitMs).unref();
    const asksSecret = this.secret !== undefined;
    connection.send({ basedxl: protocolVersion, challenge, asksSecret } satisfies Answer);
  }

  /** Closes a connection that has not said which process it is. */
  private drop(connection: Connection): void {
    if (this.visitors.delete(connection)) void connection.end();
  }

  /** The index of a process that belongs; 0 for a visitor, who is sent away alone. */
  private admit(message: Message, connection: Connection, challenge: string): number {
    this.visitors.delete(connection);
    const hello = helloOf(message);
    const refusal =
      hello === null ? this.stranger(message) : this.objection(hello, message, challenge);
    if (hello === null || refusal !== null) {
      void connection.end({ refused: refusal ?? "" });
      return 0;
    }
    this.members.set(hello.rank, { connection, nonce: hello.nonce });
    const difference = differenceOf(this.options.settings, hello.settings, hello.rank);
    if (difference !== null) this.refuse(rankFailed(difference));
    else if (this.members.size === this.options.process.count - 1) this.begin();
    return hello.rank;
  }

  private stranger({ basedxl }: Message): string {
    const isOther = typeof basedxl === "number" && basedxl !== protocolVersion;
    return isOther
      ? this.sendAway("A process runs a different version of BasedXL: install the same for all.")
      : "This is BasedXL's process 0, and it expects no such visitor.";
  }

  /** Why a process with a well-formed hello does not belong; null where it does. */
  private objection(hello: Hello, message: Message, challenge: string): string | null {
    const { count } = this.options.process;
    const { rank, worldSize, settings, nonce } = hello;
    if (this.isOver) return "This is BasedXL's process 0, and all processes are there already.";
    const parts = [challenge, rank, worldSize, settings, nonce];
    if (!isProof(this.secret, message.proof, "client", ...parts)) {
      return this.sendAway(
        `A process that says it is RANK ${rank} has not the same ${secretVariable}.`,
      );
    }
    if (worldSize !== count) {
      return this.sendAway(
        `RANK ${rank} counts ${worldSize} processes and RANK 0 counts ${count}: WORLD_SIZE must \
be the same for all.`,
      );
    }
    if (rank === 0 || rank >= count) {
      return this.sendAway(
        `A process says that it is RANK ${rank}: the others have ranks from 1 to ${count - 1}.`,
      );
    }
    if (this.members.has(rank)) {
      return this.sendAway(
        `Two processes say that they are RANK ${rank}: each needs a number of its own.`,
      );
    }
    // The names of the settings are those of a version: others are no process of this one.
    const [ours, theirs] = [this.options.settings, settings].map((values) =>
      Object.keys(values).sort().join(),
    );
    if (ours !== theirs) {
      return this.sendAway(
        `RANK ${rank} runs a different version of BasedXL: install the same for all.`,
      );
    }
    return null;
  }

  private sendAway(sentence: string): string {
    this.lastRefusal = sentence;
    this.reportCount += 1;
    if (this.reportCount <= reportCountMax) this.options.onRefusal?.(sentence);
    return sentence;
  }

  private begin(): void {
    const decisions = this.decide();
    if (decisions === null) return;
    for (const [index, { connection, nonce }] of this.members) {
      this.peers.add(index, connection);
      const proof = proofOf(this.secret, "coordinator", nonce, decisions);
      connection.send({ welcome: decisions, proof });
    }
    this.accept(decisions);
  }

  /** What the others would believe; null, and the end of the rendezvous, where there is none. */
  private decide(): Decisions | null {
    try {
      const decisions = decisionsOf(this.options.decide(), this.options.expected);
      if (decisions === null) throw rankFailed("Process 0 has no seed or ncclUniqueId for all.");
      return decisions;
    } catch (error) {
      this.refuse(error as BasedXLError);
      return null;
    }
  }
}
