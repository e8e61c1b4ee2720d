/**
 * `basedxl serve` in a process of its own, under faults of system calls, of the library's calls and
 * of its clients.
 */
import { cpSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { listeningUrl } from "../../src/bench/support/serve-process.ts";
import { golden, main } from "./programs.ts";
import { commandOf, plainRun, type Run } from "./run.ts";

export type ServerDevice = "cpu" | "cuda-emulated";

const request = { prompt: "a cat", seed: 7, num_inference_steps: 3, width: 64, height: 64 };

export interface JobEnd {
  state: string;
  error: { message: string } | null;
  images: { file: string }[];
}

export class FaultyServer {
  private constructor(
    readonly run: Run,
    readonly base: string,
    readonly child: Bun.Subprocess,
  ) {}

  static prepare(folder: string, device: ServerDevice = "cpu"): Run {
    cpSync(golden, join(folder, "model"), { recursive: true });
    mkdirSync(join(folder, "out"));
    const flags = ["--port", "0", "--outputs", "out", "--model", "model", "--device", device];
    // Hashes of a model that is deleted could not be noted in images.
    const log = ["--log-format", "json", "--no-metadata"];
    return plainRun(folder, [main, "serve", ...flags, ...log]);
  }

  static async start(run: Run): Promise<FaultyServer> {
    const { command, env } = commandOf(run);
    const options = { cwd: run.folder, env, stdout: "ignore", stderr: "pipe" } as const;
    const child = Bun.spawn(command, options);
    const server = new FaultyServer(run, await listeningUrl(child.stderr), child);
    for (let i = 0; (await server.fetch("/ready")).status !== 200; i++) {
      if (i === 2000) throw new Error("the server is not ready");
      await Bun.sleep(10);
    }
    return server;
  }

  fetch(path: string, init?: RequestInit): Promise<Response> {
    return fetch(`${this.base}${path}`, { ...init, signal: AbortSignal.timeout(30_000) });
  }

  submit(changes: Record<string, unknown> = {}): Promise<Response> {
    return this.fetch("/api/v1/jobs", {
      ...{ method: "POST", headers: { "Content-Type": "application/json" } },
      body: JSON.stringify({ request: { ...request, ...changes } }),
    });
  }

  /** A job from its beginning to its end; its error also where it was refused. */
  async job(changes: Record<string, unknown> = {}): Promise<JobEnd> {
    const response = await this.submit(changes);
    const answer = (await response.json()) as { id: string; error: { message: string } };
    if (response.status !== 202) return { state: "refused", images: [], error: answer.error };
    return await this.ended(answer.id);
  }

  async ended(id: string): Promise<JobEnd> {
    await (await this.fetch(`/api/v1/jobs/${id}/events`)).text();
    return (await (await this.fetch(`/api/v1/jobs/${id}`)).json()) as JobEnd;
  }

  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<number> {
    this.child.kill(signal);
    return await this.child.exited;
  }
}

/** Hashes of the images in a server's folder; "temporary" for what is none yet. */
export function imagesIn(folder: string): string[] {
  const names = readdirSync(join(folder, "out")).filter((name) => /\.(png|tmp)$/.test(name));
  return names.map((name) => {
    if (name.endsWith(".tmp")) return "temporary";
    return Bun.hash(readFileSync(join(folder, "out", name))).toString(36);
  });
}
