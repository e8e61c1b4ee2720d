/**
 * Messages between two processes: one JSON object per line over a TCP connection. Both ends send a
 * heartbeat every few seconds; silence, the end of the connection, or a line that is no such object
 * ends it. Whatever a message holds is untrusted: readers check every field.
 */
import type { Socket } from "node:net";

export type Message = Record<string, unknown>;

export interface ConnectionHandlers {
  onMessage(message: Message): void;
  onHeartbeat?(): void;
  /** Once, for whatever reason; no message follows. */
  onEnd(reason: string): void;
}

export interface ConnectionLimits {
  heartbeatMs: number;
  /** The longest silence of the other end. */
  silenceMs: number;
}

export const connectionLimits: ConnectionLimits = { heartbeatMs: 5_000, silenceMs: 60_000 };

/** A hello with long prompts is a tenth of it. */
const lineLengthMax = 1 << 18;

export class Connection {
  /** The beginning of a line, in pieces: a line that drips in is put together once. */
  private unread: string[] = [];
  private unreadLength = 0;
  private isOver = false;
  private heardMs = performance.now();
  private readonly timer: ReturnType<typeof setInterval>;

  /** The socket must be connected. */
  constructor(
    private readonly socket: Socket,
    private readonly handlers: ConnectionHandlers,
    limits: ConnectionLimits,
  ) {
    socket.setEncoding("utf8");
    socket.setNoDelay(true);
    socket.on("data", (text) => this.read(String(text)));
    socket.on("error", (error: NodeJS.ErrnoException) => this.finish(error.code ?? error.message));
    socket.on("close", () => this.finish("its connection ended"));
    this.timer = setInterval(() => {
      if (performance.now() - this.heardMs > limits.silenceMs) {
        this.finish(`it sent nothing for ${limits.silenceMs / 1000} s`);
      } else this.send({ heartbeat: 1 });
    }, limits.heartbeatMs);
  }

  send(message: Message): void {
    if (!this.isOver) this.socket.write(`${JSON.stringify(message)}\n`);
  }

  /** Sends a last message and closes; the handlers are not called again. */
  async end(last?: Message): Promise<void> {
    if (this.isOver) return;
    if (last) this.send(last);
    this.isOver = true;
    clearInterval(this.timer);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.socket.once("close", resolve);
    this.socket.end();
    await Promise.race([promise, Bun.sleep(endMs)]);
    this.socket.destroy();
  }

  // --- internal ---

  private read(text: string): void {
    // Whoever was sent away may still write until its end closes.
    if (this.isOver) return;
    this.heardMs = performance.now();
    const [first = "", ...others] = text.split("\n");
    this.keep(first);
    for (const next of others) {
      if (this.isOver) return;
      this.receive(this.unread.join(""));
      this.unread = [];
      this.unreadLength = 0;
      this.keep(next);
    }
  }

  private keep(piece: string): void {
    this.unread.push(piece);
    this.unreadLength += piece.length;
    if (this.unreadLength > lineLengthMax) this.finish(notOurs);
  }

  private receive(line: string): void {
    const message = parse(line);
    if (message === null) this.finish(notOurs);
    else if ("heartbeat" in message) this.handlers.onHeartbeat?.();
    else this.handlers.onMessage(message);
  }

  private finish(reason: string): void {
    if (this.isOver) return;
    this.isOver = true;
    clearInterval(this.timer);
    this.socket.destroy();
    this.handlers.onEnd(reason);
  }
}

// --- internal ---

/** How long the other end may take to close; then the socket is destroyed. */
const endMs = 1_000;

const notOurs = "it sent a line that is no message of BasedXL";

function parse(line: string): Message | null {
  try {
    const value = JSON.parse(line);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}
