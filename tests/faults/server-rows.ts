/**
 * Faults of a server: its disk, its memory, its model, its clock, its clients, its end.
 */

import { rmSync, truncateSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { dies, forgets, unreadable, weights } from "./mapped-faults.ts";
import { type Run, recordsOf } from "./run.ts";
import type { FaultyServer, ServerDevice } from "./server.ts";
import { chooseDiskFaults, chooseLibraryFaults, type DiskFaults, libraryCounts } from "./tools.ts";

export interface ServerRow {
  name: string;
  /** Default "cpu". */
  device?: ServerDevice;
  /** Faults that are there from the start. */
  apply?(run: Run): void;
  /** What happens once the server is ready. */
  before?(server: FaultyServer): Promise<void>;
  /** What happens while a job runs. */
  during?(server: FaultyServer): Promise<void>;
  /** How the server is ended while a job runs. */
  signal?: "SIGTERM" | "SIGKILL";
  /** Ends the fault, for the next job. */
  mend?(server: FaultyServer): void;
  /** How that job ends; the sentence where it does not begin. */
  ends: { state: string; error?: RegExp } | RegExp;
  /** Where the next job, too, is refused until another server has the folder. */
  lasts?: boolean;
}

const store = ".basedxl-jobs.sqlite";
const images = ".basedxl-*.tmp";

/** Calls on the files of the server's folder. */
function onDisk(spec: string, files: string): (run: Run) => void {
  return ({ calls, folder }) => void calls.push(`${spec}:${join(folder, "out", files)}`);
}

const done = { state: "done" };
const cannotOpen = /error: The jobs in .*\.sqlite cannot be opened: /;
const cannotWrite = { state: "failed", error: /^Cannot write .*(ENOSPC|EIO|EMFILE)/ };
const cutWeights = /is not a whole safetensors file/;
const day = 86_400_000;
const never = 1e15;
/** While it is in use, or where it is opened anew. */
const unread = new RegExp(`${unreadable.source}|cannot be read`);
const slow = { slow: { ...dies, value: 5 } };

export const serverRows: readonly ServerRow[] = [
  {
    name: "the disk is full for an image",
    apply: onDisk("write:ENOSPC:1:1", images),
    ends: cannotWrite,
  },
  { name: "an image cannot be flushed", apply: onDisk("sync:EIO:1:1", images), ends: cannotWrite },
  {
    name: "an image cannot be renamed",
    apply: onDisk("rename:EIO:1:1", images),
    ends: cannotWrite,
  },
  {
    name: "no file can be opened for an image",
    apply: onDisk("open:EMFILE:1:1", images),
    ends: cannotWrite,
  },
  { name: "the disk is slow", apply: onDisk("write:slow:1:9", images), ends: done },
  { name: "the store cannot be made", apply: onDisk("write:ENOSPC:8:1", store), ends: cannotOpen },
  {
    name: "the store cannot be flushed at the start",
    apply: onDisk("sync:EIO:1:1", store),
    ends: cannotOpen,
  },
  {
    name: "the store's disk is full for a moment",
    apply: onDisk("write:ENOSPC:44:3", store),
    ends: done,
  },
  {
    name: "the store's disk fails for a moment",
    apply: onDisk("write:EIO:50:4", store),
    ends: done,
  },
  {
    name: "the store's disk is full for good",
    apply: onDisk("write:ENOSPC:44:9999", store),
    ends: done,
    lasts: true,
  },
  {
    name: "no memory for a job",
    apply: ({ library }) => void Object.assign(library, { memory: { first: never } }),
    during: withoutMemory,
    ends: done,
  },
  {
    name: "the clock jumps a day back under a server",
    apply: ({ library }) =>
      void Object.assign(library, { clock: { first: 60, count: never, value: -day } }),
    ends: done,
  },
  {
    name: "weights are cut under a server",
    during: async ({ run }) =>
      truncateSync(join(run.folder, "model/unet/diffusion_pytorch_model.safetensors"), 1000),
    // The model is opened anew for the job.
    ends: { state: "failed", error: cutWeights },
    lasts: true,
  },
  {
    name: "the model is deleted under a server",
    during: async ({ run }) => rmSync(join(run.folder, "model"), { recursive: true }),
    ends: done,
  },
  { name: "SIGTERM while a job runs", signal: "SIGTERM", ends: done },
  { name: "SIGKILL while a job runs", signal: "SIGKILL", ends: done },
  { name: "clients vanish", during: vanish, ends: done },
  { name: "clients drip", during: drip, ends: done },
  { name: "clients flood", during: flood, ends: done },
];

/** On a disk of a program of ours. */
export const serverDiskRows: readonly ServerRow[] = [
  { name: "the disk of a server's model is slow", apply: onModelDisk(slow), ends: done },
  {
    name: "the disk of a server's model is slow once its cache is lost",
    apply: onModelDisk({}),
    before: ({ run }) => forgets(run, slow),
    ends: done,
  },
  {
    name: "the disk of a server's model dies, and all is cached",
    apply: onModelDisk({}),
    before: async (server) => {
      // Some weights are not read before.
      await server.job();
      chooseDiskFaults(recordsOf(server.run.folder).choices, { read: dies });
    },
    ends: done,
  },
  {
    name: "the disk of a server's model dies before a job",
    apply: onModelDisk({}),
    before: ({ run }) => forgets(run, { read: dies }),
    mend: wellAgain,
    ends: { state: "failed", error: unread },
  },
  {
    name: "the disk of a server's model dies while a job runs",
    apply: onModelDisk({}),
    during: ({ run }) => forgets(run, { read: dies }),
    mend: wellAgain,
    ends: { state: "failed", error: unread },
  },
  {
    name: "the disk of a server's model is gone",
    apply: onModelDisk({}),
    during: ({ run }) => forgets(run, { read: dies, look: dies }),
    mend: wellAgain,
    ends: { state: "failed", error: unread },
  },
  {
    name: "the disk of a server's images dies",
    apply: (run) =>
      void Object.assign(run, { disk: { folder: "out", suffix: ".tmp", faults: {} } }),
    before: async ({ run }) => chooseDiskFaults(recordsOf(run.folder).choices, { write: dies }),
    mend: wellAgain,
    ends: cannotWrite,
  },
];

const ofGpu = { device: "cuda-emulated" } as const;
/** Kernels of a job of three steps are more, those before it fewer. */
const kernelAt = 250;

/** On an emulated GPU. */
export const serverGpuRows: readonly ServerRow[] = [
  {
    ...{ ...ofGpu, name: "a kernel crashes on a server's GPU" },
    apply: failsAt(`kernel:0:${kernelAt}`),
    // By another session.
    ends: done,
  },
  {
    ...{ ...ofGpu, name: "a server's GPU is lost" },
    apply: failsAt(`device:0:${kernelAt}`),
    ends: { state: "failed", error: /^cuDevicePrimaryCtxRetain failed: .*GPU 0/ },
    lasts: true,
  },
];

// --- internal ---

function failsAt(fault: string): (run: Run) => void {
  return ({ env }) => void Object.assign(env, { BASEDXL_EMULATOR_FAULT: fault });
}

function onModelDisk(faults: DiskFaults): (run: Run) => void {
  return (run) => void Object.assign(run, { disk: { folder: "model", suffix: weights, faults } });
}

function wellAgain({ run }: FaultyServer): void {
  chooseDiskFaults(recordsOf(run.folder).choices, {});
}

/** Other jobs find no memory, ten times in a row. */
async function withoutMemory(server: FaultyServer): Promise<void> {
  const { control } = recordsOf(server.run.folder);
  let hits = 0;
  for (let first = 1; first < 200; first += 20) {
    chooseLibraryFaults(control, { memory: { first, count: 10 } });
    const { state, error } = await server.job();
    hits += libraryCounts(control, "memory").hits;
    const isSaid = state === "done" || /[Mm]emory|threads/.test(error?.message ?? "");
    if (!isSaid) throw new Error(`without memory a job is ${state}: ${error?.message}`);
  }
  if (hits === 0) throw new Error("the fault did not strike");
  chooseLibraryFaults(control, { memory: { first: never } });
}

/** Readers of events, and senders of half a request, who are gone at once. */
async function vanish(server: FaultyServer): Promise<void> {
  const controller = new AbortController();
  const reading = Array.from({ length: 40 }, () =>
    fetch(`${server.base}/api/v1/events`, { signal: controller.signal }).catch(() => null),
  );
  for (let i = 0; i < 40; i++) openSocket(server, 100_000).destroy();
  await Bun.sleep(50);
  controller.abort();
  await Promise.all(reading);
}

/** Requests that come a byte at a time, for longer than the job runs. */
async function drip(server: FaultyServer): Promise<void> {
  const sockets = Array.from({ length: 40 }, () => openSocket(server, 100_000));
  const timer = setInterval(() => {
    for (const socket of sockets) if (socket.writable) socket.write(" ");
  }, 20);
  await Bun.sleep(500);
  clearInterval(timer);
  for (const socket of sockets) socket.destroy();
}

/** More jobs than the queue holds; those that were taken are taken back. */
async function flood(server: FaultyServer): Promise<void> {
  const answers = await Promise.all(Array.from({ length: 150 }, () => server.submit()));
  const statuses = new Set(answers.map(({ status }) => status));
  if (!statuses.isSubsetOf(new Set([202, 429]))) throw new Error(`answers: ${[...statuses]}`);
  for (const answer of answers) {
    const { id } = (await answer.json()) as { id?: string };
    if (id !== undefined) await server.fetch(`/api/v1/jobs/${id}`, { method: "DELETE" });
  }
}

function openSocket({ base }: FaultyServer, length: number) {
  const { hostname, port } = new URL(base);
  const socket = connect(Number(port), hostname);
  socket.on("error", () => {});
  const head = [
    "POST /api/v1/jobs HTTP/1.1",
    `Host: ${hostname}:${port}`,
    `Content-Length: ${length}`,
  ];
  socket.write([...head, "Content-Type: application/json", "", "{"].join("\r\n"));
  return socket;
}
