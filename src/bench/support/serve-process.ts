/**
 * A server in a process of its own, and what a client does with it: for benches and tests that
 * measure it from outside, or kill it.
 */
import { join } from "node:path";

const main = join(import.meta.dir, "../../main.ts");

/** The part of a job's JSON that is read here. */
interface Job {
  id: string;
  state: string;
  createdAt: number;
  startedAt: number | null;
  endedAt: number | null;
  images: { index: number; seed: string; file: string }[];
  progress: { step: number; secondsPerStep: number | null } | null;
}

export class ServeProcess implements AsyncDisposable {
  private constructor(
    private readonly child: Bun.Subprocess,
    readonly base: string,
  ) {}

  /** Resolves when it listens; `args` are flags of serve. Port 0 is a free one. */
  static async start(
    outputs: string,
    args: readonly string[] = [],
    port = "0",
  ): Promise<ServeProcess> {
    const flags = ["--port", port, "--outputs", outputs, "--log-format", "json", ...args];
    const child = Bun.spawn([process.execPath, main, "serve", ...flags], {
      ...{ stdout: "ignore", stderr: "pipe" },
    });
    return new ServeProcess(child, await listeningUrl(child.stderr));
  }

  async isReady(): Promise<void> {
    while ((await this.fetch("/ready")).status !== 200) await Bun.sleep(5);
  }

  fetch(path: string, init?: RequestInit): Promise<Response> {
    return fetch(`${this.base}${path}`, init);
  }

  async submit(request: Record<string, unknown>): Promise<Job> {
    const response = await this.fetch("/api/v1/jobs", {
      ...{ method: "POST", body: JSON.stringify({ request }) },
      headers: { "Content-Type": "application/json" },
    });
    if (response.status !== 202) throw new Error(await response.text());
    return (await response.json()) as Job;
  }

  async job(id: string): Promise<Job> {
    return (await (await this.fetch(`/api/v1/jobs/${id}`)).json()) as Job;
  }

  /** The job when it has ended. */
  async ended(id: string): Promise<Job> {
    await (await this.fetch(`/api/v1/jobs/${id}/events`)).text();
    return await this.job(id);
  }

  get pid(): number {
    return this.child.pid;
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    this.child.kill(signal);
    await this.child.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill("SIGTERM");
  }
}

/** The address in a server's log, without a slash at its end. */
export async function listeningUrl(log: ReadableStream<Uint8Array>): Promise<string> {
  const [, url] = await inLog(log, /"event":"listening","url":"([^"]+)\/"/);
  return url!;
}

/** A worker in a process of its own. */
class WorkerProcess {
  private constructor(private readonly child: Bun.Subprocess) {}

  /** Resolves when it takes jobs; `args` are flags of worker. */
  static async start(args: readonly string[]): Promise<WorkerProcess> {
    const child = Bun.spawn([process.execPath, main, "worker", "--log-format", "json", ...args], {
      ...{ stdout: "ignore", stderr: "pipe" },
    });
    await inLog(child.stderr, /"event":"working"/);
    return new WorkerProcess(child);
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    this.child.kill(signal);
    await this.child.exited;
  }
}

/**
 * Kills one of three workers with SIGKILL, at `killCount` moments that `random` chooses, while they
 * generate jobs of a server; another one takes its place. Resolves to what is wrong in the end, as
 * `killWhileGenerating`, and to files that differ from those of a server without workers.
 */
export async function killWorkers(
  outputs: { workers: string; alone: string },
  { queue, killCount, random }: { queue: string; killCount: number; random: () => number },
): Promise<string[]> {
  const shared = ["--queue", queue, "--worker-timeout", "2", "--device", "cpu"];
  const more = ["--outputs", outputs.workers, "--max-attempts", "100"];
  const startWorker = () => WorkerProcess.start([...shared, ...more]);
  await using server = await ServeProcess.start(outputs.workers, shared);
  await server.isReady();
  const workers = await Promise.all([startWorker(), startWorker(), startWorker()]);
  const ids: string[] = [];
  for (let kill = 0; kill < killCount; kill++) {
    for (let i = 0; i < 2; i++) ids.push((await server.submit(killedRequest(ids.length))).id);
    await Bun.sleep(random() * killWithinMs);
    const victim = Math.floor(random() * workers.length);
    await workers[victim]!.kill("SIGKILL");
    workers[victim] = await startWorker();
  }
  const problems = await problemsOf(server, ids);
  await Promise.all(workers.map((worker) => worker.kill("SIGTERM")));
  await using alone = await ServeProcess.start(outputs.alone, ["--device", "cpu"]);
  await alone.isReady();
  for (const [index, id] of ids.entries()) {
    const { images } = await alone.ended((await alone.submit(killedRequest(index))).id);
    for (const { index: place, file } of images) {
      const own = await Bun.file(join(outputs.alone, file)).bytes();
      const other = (await server.job(id)).images[place]?.file ?? "none";
      const bytes = await Bun.file(join(outputs.workers, other)).bytes();
      if (!Bun.deepEquals(own, bytes)) problems.push(`${other} differs without workers`);
    }
  }
  return problems;
}

/**
 * Kills servers with SIGKILL while they generate `jobCount` jobs, at `killCount` moments that
 * `random` chooses, and resolves to what is wrong in the end: empty, where every job is done, each
 * of its images is there once, and no other file is left.
 */
export async function killWhileGenerating(
  outputs: string,
  { jobCount, killCount, random }: { jobCount: number; killCount: number; random: () => number },
): Promise<string[]> {
  const args = ["--device", "cpu", "--max-attempts", "100"];
  const ids: string[] = [];
  const submitSome = async (server: ServeProcess, count: number) => {
    for (let i = 0; i < count && ids.length < jobCount; i++) {
      ids.push((await server.submit(killedRequest(ids.length))).id);
    }
  };
  for (let kill = 0; kill < killCount; kill++) {
    const server = await ServeProcess.start(outputs, args);
    await submitSome(server, Math.ceil(jobCount / killCount));
    await Bun.sleep(random() * killWithinMs);
    await server.kill("SIGKILL");
  }
  await using server = await ServeProcess.start(outputs, args);
  await submitSome(server, jobCount);
  await server.isReady();
  return await problemsOf(server, ids);
}

// --- internal ---

const killWithinMs = 1500;

/** Of the job of this index. */
function killedRequest(index: number) {
  return { num_inference_steps: 2, num_images: 2, seed: index * 10 };
}

/** What is wrong with jobs of `killedRequest`, once all have ended. */
async function problemsOf(server: ServeProcess, ids: readonly string[]): Promise<string[]> {
  const problems: string[] = [];
  const files = new Set<string>();
  for (const [index, id] of ids.entries()) {
    const { state, images } = await server.ended(id);
    const seeds = images.map(({ seed }) => Number(seed));
    if (state !== "done" || String(seeds) !== String([index * 10, index * 10 + 1])) {
      problems.push(`job ${index} is ${state} with the seeds ${seeds}`);
    }
    for (const { file } of images) {
      files.add(file);
      const thumbnail = await server.fetch(`/api/v1/images/${file}/thumbnail`);
      if (thumbnail.headers.get("Content-Type") !== "image/webp")
        problems.push(`${file} is broken`);
    }
  }
  const listed = (await (await server.fetch("/api/v1/images?limit=1000")).json()) as {
    images: { name: string }[];
  };
  const others = listed.images.filter(({ name }) => !files.has(name));
  problems.push(...others.map(({ name }) => `${name} is no job's`));
  return problems;
}

/** The first match in a log. The rest of it is read too: a full pipe would stop the process. */
async function inLog(log: ReadableStream<Uint8Array>, pattern: RegExp): Promise<RegExpExecArray> {
  const { promise, resolve, reject } = Promise.withResolvers<RegExpExecArray>();
  void (async () => {
    let text = "";
    const decoder = new TextDecoder();
    for await (const chunk of log) {
      if (text.length < 1e5) text += decoder.decode(chunk);
      const found = pattern.exec(text);
      if (found !== null) resolve(found);
    }
    reject(new Error(`The process ended before it was ready: ${text}`));
  })();
  return await promise;
}
