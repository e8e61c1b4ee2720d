/**
 * A process other than 0 at the rendezvous: connects until the coordinator answers.
 */
import { connect, type Socket } from "node:net";
import { type BasedXLError, escaped } from "../../errors.ts";
import type { Connection, Message } from "../connection.ts";
import { Attempt } from "./attempt.ts";
import {
  decisionsOf,
  isProof,
  newNonce,
  proofOf,
  protocolVersion,
  type RendezvousOptions,
  rankFailed,
} from "./protocol.ts";

const retryMs = 250;

export class Client extends Attempt {
  private readonly nonce = newNonce();
  private lastError = "no answer";
  private connected: Connection | null = null;
  private socket: Socket | null = null;

  constructor(options: RendezvousOptions) {
    super(options);
    this.dial();
  }

  protected lateness(): BasedXLError {
    const { host, port } = this.options.process;
    const seconds = this.limitMs / 1000;
    if (this.connected) {
      const secret =
        this.options.secret === undefined
          ? ""
          : " Was it started with the same BASEDXL_RENDEZVOUS_SECRET?";
      return rankFailed(
        `Process 0 is there, but not all others came within ${seconds} s.${secret}`,
      );
    }
    return rankFailed(
      `Process 0 did not answer at ${host}:${port} within ${seconds} s (${this.lastError}). Is it \
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
    const { host, port } = this.options.process;
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
      const connection = this.connection(socket, {
        onMessage: (message) => this.receive(message, connection),
        onEnd: (reason) => this.lose(reason),
      });
      this.connected = connection;
      this.peers.add(0, connection);
      // With a secret the coordinator speaks first.
      if (this.options.secret === undefined) this.introduce(connection, "");
    });
  }

  private introduce(connection: Connection, challenge: string): void {
    const { settings, secret, process } = this.options;
    const { index: rank, count: worldSize } = process;
    const { nonce } = this;
    const proof = proofOf(secret, challenge, rank, worldSize, settings, nonce);
    connection.send({ basedxl: protocolVersion, rank, worldSize, settings, nonce, proof });
  }

  private receive(message: Message, connection: Connection): void {
    const { refused, welcome, proof, challenge } = message;
    const { secret, expected } = this.options;
    if (this.isOver) this.peers.receive(0, message);
    else if (typeof refused === "string") this.refuse(rankFailed(escaped(refused, 1000)));
    else if (typeof challenge === "string" && secret !== undefined) {
      this.introduce(connection, challenge);
    } else if (typeof challenge === "string") {
      this.refuse(
        rankFailed("Process 0 asks for a secret: set BASEDXL_RENDEZVOUS_SECRET alike for all."),
      );
    } else {
      const decisions = decisionsOf(welcome, expected);
      const isRight = isProof(secret, proof, this.nonce, decisions);
      if (decisions !== null && isRight) this.accept(decisions);
      else this.refuse(rankFailed("Process 0 answered what no BasedXL of this version does."));
    }
  }

  private lose(reason: string): void {
    if (this.isOver) this.peers.lose(0, reason);
    else this.refuse(rankFailed(`Process 0 went away before all processes had come (${reason}).`));
  }
}
