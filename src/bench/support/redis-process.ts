/**
 * A Redis of its own on a free port, for benches and tests that kill it. It keeps nothing on disk:
 * whoever kills it takes everything it knows.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The command; null where the machine has none. */
export function findRedis(): string | null {
  return Bun.which("redis-server") ?? Bun.which("valkey-server");
}

export class RedisProcess implements AsyncDisposable {
  private readonly folder = mkdtempSync(join(tmpdir(), "basedxl-redis-"));
  private child: Bun.Subprocess | null = null;

  private constructor(
    private readonly command: string,
    private readonly port: number,
  ) {}

  static async start(command: string): Promise<RedisProcess> {
    const probe = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const { port } = probe;
    probe.stop(true);
    const redis = new RedisProcess(command, port);
    await redis.start();
    return redis;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** Resolves when it answers. */
  async start(): Promise<void> {
    const flags = ["--port", `${this.port}`, "--bind", "127.0.0.1", "--save", ""];
    this.child = Bun.spawn([this.command, ...flags, "--dir", this.folder], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    const decoder = new TextDecoder();
    const log = this.child.stdout as ReadableStream<Uint8Array>;
    const reader = log.getReader();
    for (let text = ""; !/ready to accept/i.test(text); ) {
      const { done, value } = await reader.read();
      if (done) throw new Error(`Redis did not start: ${text}`);
      text += decoder.decode(value);
    }
    reader.releaseLock();
  }

  async kill(): Promise<void> {
    this.child?.kill("SIGKILL");
    await this.child?.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
