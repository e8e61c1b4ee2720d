/**
 * Messages between two machines: a line of JSON each, over one TCP connection. Both ends send a
 * beat every few seconds; silence, the connection's end, or a line that is none of ours ends it.
 */
import type { Socket } from "node:net";

export interface WireHandlers {
  onMessage(message: Record<string, unknown>): void;
  /** Once, for whatever reason; nothing comes afterwards. */
  onEnd(reason: string): void;
}

export interface WireLimits {
  beatMs: number;
  /** Without a word from the other side. */
  silenceMs: number;
}

export const wireLimits: WireLimits = { beatMs: 5_000, silenceMs: 60_000 };

/** A hello with long prompts is a tenth of it. */
const lineLengthMax = 1 << 18;

export class Wire {
  private unread = "";
  private isOver = false;
  private heardMs = performance.now();
  private readonly timer: ReturnType<typeof setInterval>;

  /** The socket must be connected. */
  constructor(
    private readonly socket: Socket,
    private readonly handlers: WireHandlers,
    limits: WireLimits,
  ) {
    socket.setEncoding("utf8");
    socket.setNoDelay(true);
    socket.on("data", (text) => this.read(String(text)));
    socket.on("error", (error: NodeJS.ErrnoException) => this.finish(error.code ?? error.message));
    socket.on("close", () => this.finish("its connection ended"));
    this.timer = setInterval(() => {
      if (performance.now() - this.heardMs > limits.silenceMs) {
        this.finish(`it said nothing for ${limits.silenceMs / 1000} s`);
      } else this.send({ beat: 1 });
    }, limits.beatMs);
  }

  send(message: Record<string, unknown>): void {
    if (!this.isOver) this.socket.write(`${JSON.stringify(message)}\n`);
  }

  /** Sends what is still to be said, and ends; the handlers hear no more. */
  async end(last?: Record<string, unknown>): Promise<void> {
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
    this.heardMs = performance.now();
    const lines = (this.unread + text).split("\n");
    this.unread = lines.pop() ?? "";
    if (this.unread.length > lineLengthMax) this.finish("it sent no message of ours");
    for (const line of lines) {
      if (this.isOver) return;
      const message = parse(line);
      if (message === null) this.finish("it sent no message of ours");
      else if (!("beat" in message)) this.handlers.onMessage(message);
    }
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

/** For the other side to close too; then the socket is left to the system. */
const endMs = 1_000;

function parse(line: string): Record<string, unknown> | null {
  try {
    const value = JSON.parse(line);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}
