/**
 * A server in this process whose sessions compute nothing: steps that take a time, and images of
 * one colour. Its folder of outputs outlives it, for tests of restarts.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stopIfAborted } from "../../src/errors.ts";
import type { PipelineDependencies } from "../../src/pipeline.ts";
import { readConfig } from "../../src/serve/config.ts";
import type { JobEvent, JobView } from "../../src/serve/jobs/types.ts";
import type { ServeLog } from "../../src/serve/log.ts";
import { startServer } from "../../src/serve/server.ts";
import { startWorker } from "../../src/serve/worker.ts";
import { fakeOpener, type SessionLog } from "./fake-model.ts";

/** A job in JSON. */
export type JobJson = Omit<JobView, "spec"> & {
  spec: { request: Record<string, unknown>; client: string; model: string };
};

interface Given {
  flags?: Record<string, string | boolean>;
  /** Of a step, in milliseconds. Default 1. */
  stepMs?: number;
  /** Thrown by the first images, one after the other. */
  failures?: Error[];
  /** Thrown by the first loads of a model, one after the other. */
  loadFailures?: Error[];
  /** What loads wait for. */
  loading?: Promise<void>;
  /** False for a server that resolves before its first model is loaded. */
  waits?: boolean;
  outputs?: string;
}

export interface TestServer extends AsyncDisposable {
  url: string;
  outputs: string;
  log: SessionLog;
  lines: { level: string; event: string }[];
  fetch(path: string, init?: RequestInit): Promise<Response>;
  /** Without a socket. */
  answer(request: Request): Promise<Response>;
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Response>;
  submit(request?: Record<string, unknown>, spec?: Record<string, unknown>): Promise<JobJson>;
  job(id: string): Promise<JobJson>;
  /** The job when it has ended. */
  ended(id: string): Promise<JobJson>;
  events(id: string, lastId?: number): Promise<JobEvent[]>;
  stop(): Promise<void>;
}

/** A folder that is removed when the tests end. */
export function outputsFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-serve-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Ready when it resolves, but for `waits`. */
export async function startTestServer(given: Given = {}): Promise<TestServer> {
  const outputs = given.outputs ?? outputsFolder();
  const flags = { port: "0", outputs, device: "cpu", ...given.flags };
  const { log, dependencies } = slowSessions(given);
  const { lines, notes } = notedLog();
  const config = readConfig({ flags, env: {} });
  const server = await startServer({ config, log: notes, dependencies });
  const base = server.url.replace(/\/$/, "");
  const call = (path: string, init?: RequestInit) => fetch(`${base}${path}`, init);
  const job = async (id: string) => (await (await call(`/api/v1/jobs/${id}`)).json()) as JobJson;
  const post = (path: string, body: unknown, headers = {}) =>
    call(path, {
      ...{ method: "POST", body: JSON.stringify(body) },
      headers: { "Content-Type": "application/json", ...headers },
    });
  const test: TestServer = {
    ...{ url: base, outputs, log, lines, fetch: call, post, job },
    answer: async (request) => await server.fetch(request),
    async submit(request = {}, spec = {}) {
      const response = await post("/api/v1/jobs", { request, ...spec });
      if (response.status !== 202) throw new Error(await response.text());
      return (await response.json()) as JobJson;
    },
    async ended(id) {
      await test.events(id);
      return await job(id);
    },
    async events(id, lastId) {
      const init = lastId === undefined ? {} : { headers: { "Last-Event-ID": `${lastId}` } };
      const response = await call(`/api/v1/jobs/${id}/events`, init);
      return eventsIn(await response.text());
    },
    stop: () => server.stop(),
    async [Symbol.asyncDispose]() {
      await server.stop();
    },
  };
  while (given.waits !== false && (await call("/ready")).status !== 200) await Bun.sleep(2);
  return test;
}

export interface TestWorker extends AsyncDisposable {
  /** What its sessions were asked for. */
  log: SessionLog;
  lines: TestServer["lines"];
  stop(): Promise<void>;
}

/** A worker in this process, of the same sessions; it takes jobs when it resolves. */
export async function startTestWorker(queue: string, given: Given): Promise<TestWorker> {
  const flags = { queue, device: "cpu", outputs: given.outputs, ...given.flags };
  const { log, dependencies } = slowSessions(given);
  const { lines, notes } = notedLog();
  const config = { ...readConfig({ flags, env: {} }), queue };
  const worker = await startWorker({ config, log: notes, dependencies });
  const stop = () => worker.stop();
  return { log, lines, stop, [Symbol.asyncDispose]: stop };
}

/** The data of server-sent events. */
export function eventsIn(text: string): JobEvent[] {
  return [...text.matchAll(/^data: (.*)$/gm)].map(([, data = ""]) => JSON.parse(data));
}

// --- internal ---

function notedLog() {
  const lines: TestServer["lines"] = [];
  const at = (level: string) => (event: string) => void lines.push({ level, event });
  const notes: ServeLog = {
    ...{ debug: () => {}, info: at("info"), warn: at("warn"), error: at("error") },
  };
  return { lines, notes };
}

function slowSessions({ stepMs = 1, failures = [], loadFailures = [], loading }: Given) {
  const { log, ...fake } = fakeOpener();
  const dependencies: PipelineDependencies = {
    ...fake,
    async openSession(options) {
      await loading;
      const failed = loadFailures.shift();
      if (failed !== undefined) throw failed;
      const session = await fake.openSession(options);
      return {
        ...session,
        async image(request, hooks) {
          const failure = failures.shift();
          if (failure !== undefined) throw failure;
          const stepCount = request.steps.length;
          for (let stepIndex = 0; stepIndex < stepCount; stepIndex++) {
            const progress = { stage: "denoise", stepIndex, stepCount } as const;
            await hooks?.onProgress?.({ ...progress, loadFraction: 1, adaptFraction: 1 });
            await Bun.sleep(stepMs);
            stopIfAborted(hooks?.signal);
          }
          return await session.image(request, hooks);
        },
      };
    },
  };
  return { log, dependencies };
}
