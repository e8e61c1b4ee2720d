/**
 * A process other than 0 at the rendezvous: connects until the coordinator answers.
 */
import { connect, type Socket } from "node:net";
import type { BasedXLError } from "../../errors.ts";
import type { Connection, Message } from "../connection.ts";
import { shown } from "../peer-group.ts";
import { Attempt } from "./attempt.ts";
import {
  type Challenge,
  challengeOf,
  decisionsOf,
  protocolVersion,
  type RendezvousOptions,
  rankFailed,
} from "./protocol.ts";
import { isProof, newNonce, proofOf, secretVariable } from "./secret.ts";

const retryMs = 250;
/** Connections that end before an answer: strangers may have taken the place at the port. */
const lossCountMax = 20;

export class Client extends Attempt {
  private readonly nonce = newNonce();
  private lastError = "no answer";
  private connected: Connection | null = null;
  private socket: Socket | null = null;
  private isIntroduced = false;
  private lossCount = 0;

  constructor(options: RendezvousOptions) {
    super(options);
    this.dial();
  }

  protected lateness(): BasedXLError {
    const { host, port } = this.options.process;
    const seconds = this.limitMs / 1000;
    if (this.connected) {
      return rankFailed(
        this.isIntroduced
          ? `Process 0 is there, but not all others came within ${seconds} s.`
          : `Nothing that BasedXL says came from ${host}:${port} within ${seconds} s. Is \
MASTER_PORT that of process 0?`,
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
      if (this.lossCount > 0) this.refuse(wentAway(this.lastError));
      else setTimeout(() => this.dial(), retryMs);
    };
    socket.once("error", retry);
    socket.once("connect", () => {
      socket.off("error", retry);
      const connection = this.connection(socket, {
        onMessage: (message) => this.receive(message, connection),
        onEnd: (reason) => this.lose(reason),
      });
      this.connected = connection;
      this.isIntroduced = false;
      this.peers.add(0, connection);
    });
  }

  private introduce(connection: Connection, { challenge, asksSecret }: Challenge): void {
    const { settings, secret, process } = this.options;
    if (asksSecret !== (secret !== undefined)) {
      this.refuse(rankFailed(asksSecret ? secretWanted : secretUnknown));
      return;
    }
    this.isIntroduced = true;
    const { index: rank, count: worldSize } = process;
    const { nonce } = this;
    const proof = proofOf(secret, "client", challenge, rank, worldSize, settings, nonce);
    connection.send({ basedxl: protocolVersion, rank, worldSize, settings, nonce, proof });
  }

  private receive(message: Message, connection: Connection): void {
    const { refused, welcome, proof } = message;
    const { secret, expected } = this.options;
    const challenge = this.isIntroduced ? null : challengeOf(message);
    if (this.isOver) this.peers.receive(0, message);
    else if (typeof refused === "string") this.refuse(rankFailed(shown(refused)));
    else if (challenge !== null) this.introduce(connection, challenge);
    else {
      const decisions = decisionsOf(welcome, expected);
      const isRight = isProof(secret, proof, "coordinator", this.nonce, decisions);
      if (decisions !== null && isRight) this.accept(decisions);
      else this.refuse(rankFailed("Process 0 answered what no BasedXL of this version does."));
    }
  }

  private lose(reason: string): void {
    if (this.isOver) this.peers.lose(0, reason);
    else if (this.lossCount >= lossCountMax) this.refuse(wentAway(reason));
    else {
      this.lossCount += 1;
      setTimeout(() => this.dial(), retryMs);
    }
  }
}

// --- internal ---

const secretWanted = `Process 0 asks for a secret: set ${secretVariable} to what it shows.`;
const secretUnknown = `Process 0 knows no secret: set ${secretVariable} alike for all.`;

function wentAway(reason: string): BasedXLError {
  return rankFailed(`Process 0 went away before all processes had come (${reason}).`);
}
