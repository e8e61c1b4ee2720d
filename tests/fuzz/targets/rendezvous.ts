/**
 * The rendezvous of processes: what comes to the coordinator from a socket, what comes to a client,
 * and what processes tell each other later. Nothing listens, and no time passes.
 */
import type { Socket } from "node:net";
import { Connection, type Message } from "../../../src/distributed/connection.ts";
import { PeerGroup } from "../../../src/distributed/peer-group.ts";
import { Client } from "../../../src/distributed/rendezvous/client.ts";
import { Coordinator } from "../../../src/distributed/rendezvous/coordinator.ts";
import {
  protocolVersion,
  type RendezvousOptions,
  type RendezvousResult,
} from "../../../src/distributed/rendezvous/protocol.ts";
import { proofOf } from "../../../src/distributed/rendezvous/secret.ts";
import { BasedXLError } from "../../../src/errors.ts";
import { id, optionsOf } from "../../support/rendezvous.ts";
import { mutateJson, mutateText } from "../mutate.ts";
import { target } from "../target.ts";

/** Of both sides, what is called by sockets and timers alone. */
interface Side {
  result(): Promise<RendezvousResult>;
  refuse(error: BasedXLError): void;
  welcome(socket: Socket): void;
  receive(message: Message, connection: Connection): void;
}

type Make = new (options: RendezvousOptions) => Side;
/** Without a socket that listens, or one that connects. */
const QuietCoordinator = class extends (Coordinator as unknown as Make) {
  listen(): void {}
} as Make;
const QuietClient = class extends (Client as unknown as Make) {
  dial(): void {}
} as Make;

const secret = "open sesame";
const basedxl = protocolVersion;
const settings = { "--seed": "7", "--steps": "4" };
const fromClients: unknown[] = [
  { basedxl, rank: 1, worldSize: 2, settings, nonce: "n", proof: "PROOF" },
  { basedxl, rank: 1, worldSize: 3, settings: { "--seed": "8" }, nonce: "n", proof: "PROOF" },
  { heartbeat: 1 },
  { failed: "GPU 0 failed." },
  { done: true },
];
const welcome = { ncclUniqueId: id, seed: "7" };
const fromCoordinator: unknown[] = [
  { basedxl, challenge: "c", asksSecret: true },
  { basedxl, challenge: "c", asksSecret: false },
  { welcome, proof: "PROOF" },
  { refused: "no" },
  { ended: "Process 0 failed." },
];
const keys = ["basedxl", "welcome", "refused", "failed", "ended", "done", "settings", "challenge"];

export const rendezvousTarget = target(
  "rendezvous",
  (random) => {
    const side = random.pick(["coordinator", "client", "peers"] as const);
    const messages = side === "client" ? fromCoordinator : fromClients;
    const lines = Array.from({ length: 1 + random.below(3) }, (_, index) => {
      const message = messages[index === 0 ? 0 : random.below(messages.length)];
      return random.once(3) ? JSON.stringify(message) : mutateJson(random, message, keys);
    });
    const text = `${lines.join("\n")}\n`;
    const isOdd = random.once(4);
    return {
      ...{ side, hasSecret: random.once(2) },
      text: isOdd ? mutateText(random, text, ["\n", "{", "}", "\0"]) : text,
    };
  },
  async ({ side, hasSecret, text }) => {
    const { setTimeout } = globalThis;
    globalThis.setTimeout = timeless as unknown as typeof setTimeout;
    try {
      await sides[side](text, hasSecret ? secret : undefined);
    } finally {
      globalThis.setTimeout = setTimeout;
    }
  },
);

// --- internal ---

const timeless = () => ({ unref() {}, ref() {}, [Symbol.toPrimitive]: () => 0 });

const sides = {
  async coordinator(text: string, given: string | undefined): Promise<void> {
    const coordinator = new QuietCoordinator(optionsFor(0, given));
    const socket = new FakeSocket();
    coordinator.welcome(socket as unknown as Socket);
    const { challenge } = JSON.parse(socket.written[0]!);
    const proof = proofOf(given, "client", challenge, 1, 2, settings, "n");
    socket.arrive(text.replace("PROOF", proof));
    await ended(coordinator);
  },
  async client(text: string, given: string | undefined): Promise<void> {
    const client = new QuietClient(optionsFor(1, given));
    const connection = { send() {}, end: async () => {} };
    for (const line of text.split("\n")) {
      const message = messageOf(line);
      if (message !== null) client.receive(message, connection as unknown as Connection);
    }
    await ended(client).catch(({ message }) => {
      // Process 0 is believed to send sentences; an empty one would be no answer to the user.
      if (!/^\P{Cc}+$/u.test(message)) throw new Error(`no sentence: ${message}`);
    });
  },
  async peers(text: string): Promise<void> {
    const peers = new PeerGroup(0, (index) => `Process ${index}`);
    const socket = new FakeSocket();
    const limits = { heartbeatMs: 2 ** 30, silenceMs: 2 ** 30 };
    new Connection(
      socket as unknown as Socket,
      { onMessage: (message) => peers.receive(1, message), onEnd: (why) => peers.lose(1, why) },
      limits,
    );
    socket.arrive(text);
    if (peers.failure !== null) throw peers.failure;
  },
};

function optionsFor(index: number, given: string | undefined): RendezvousOptions {
  return {
    ...optionsOf(1, index),
    ...{ settings, connection: { heartbeatMs: 2 ** 30, silenceMs: 2 ** 30 } },
    ...(given !== undefined && { secret: given }),
  };
}

/** Throws what the rendezvous ended with, if it has. */
async function ended(side: Side): Promise<void> {
  side.refuse(new BasedXLError("cancelled", "The case is over."));
  await side.result();
}

function messageOf(line: string): Message | null {
  try {
    const value: unknown = JSON.parse(line);
    const isMessage = typeof value === "object" && value !== null && !Array.isArray(value);
    return isMessage ? (value as Message) : null;
  } catch {
    return null;
  }
}

/** The other end of a connection, which sends in small pieces and then closes. */
class FakeSocket {
  readonly written: string[] = [];
  private readonly handlers = new Map<string, (text?: string) => void>();

  on(event: string, handler: (text?: string) => void): void {
    this.handlers.set(event, handler);
  }

  once(event: string, handler: () => void): void {
    // What waits for the end has it.
    if (event === "close") handler();
  }

  arrive(text: string): void {
    for (let at = 0; at < text.length; at += 7) this.handlers.get("data")?.(text.slice(at, at + 7));
    this.handlers.get("close")?.();
  }

  write(text: string): void {
    this.written.push(text);
  }

  setEncoding(): void {}
  setNoDelay(): void {}
  end(): void {}
  destroy(): void {}
}
