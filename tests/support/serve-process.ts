/**
 * `basedxl serve` as a process of its own, that tests stop and start again.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "./sources.ts";

export class ServeProcess {
  private child: Bun.Subprocess<"ignore", "ignore", "pipe"> | null = null;
  private port = 0;

  private constructor(
    private readonly folder: string,
    private readonly flags: readonly string[],
  ) {}

  /** Resolves when it listens, on a free port that stays its own over restarts. */
  static async start(flags: readonly string[]): Promise<ServeProcess> {
    const server = new ServeProcess(mkdtempSync(join(tmpdir(), "basedxl-serve-")), flags);
    await server.start();
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}/`;
  }

  async start(): Promise<void> {
    const outputs = join(this.folder, "outputs");
    const own = ["--port", `${this.port}`, "--outputs", outputs, "--log-format", "json"];
    this.child = Bun.spawn(
      [process.execPath, join(root, "src/main.ts"), "serve", ...own, ...this.flags],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    this.port = Number(new URL(await listeningUrl(this.child.stderr)).port);
  }

  /** As a crash does. */
  async kill(): Promise<void> {
    this.child?.kill("SIGKILL");
    await this.child?.exited;
    this.child = null;
  }

  async remove(): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The address in a server's log. The rest of it is read too, or the server would end. */
export async function listeningUrl(log: ReadableStream<Uint8Array>): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const read = async () => {
    const decoder = new TextDecoder();
    let text = "";
    for await (const part of log) {
      text += decoder.decode(part, { stream: true });
      const [, url] = /"event":"listening","url":"([^"]+)"/.exec(text) ?? [];
      if (url !== undefined) resolve(url);
    }
    reject(new Error(`The server did not start:\n${text}`));
  };
  read().catch(reject);
  return await promise;
}
