/**
 * One run of a program in a folder of its own, and what a fault may change about it.
 */
import {
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import {
  type DiskFaults,
  diskCounts,
  injector,
  type LibraryFaults,
  libraryCounts,
  libraryFaults,
  onFaultyDisk,
} from "./tools.ts";

export interface Run {
  /** Everything that the run needs or makes lies in it. */
  folder: string;
  args: string[];
  env: Record<string, string>;
  /** Faults of system calls, as `inject-faults` takes them. */
  calls: string[];
  /** Faults of the library's calls. */
  library: LibraryFaults;
  /** A folder of the run that is on a disk of its own, whose faults files that end so have. */
  disk: { folder: string; suffix: string; faults: DiskFaults } | null;
  /** What a shell does first: limits. */
  before: string;
  /** Killed after so long. */
  limitMs: number;
  /** Once the program generates. */
  during: ((child: Child) => void)[];
  /** Undoes what the next run cannot live with. */
  mended: (() => void)[];
}

export interface Child {
  kill(signal: NodeJS.Signals): void;
}

export interface Ended {
  exitCode: number;
  stdout: string;
  stderr: string;
  /** How often each fault struck. */
  hits: number[];
}

export function plainRun(folder: string, args: string[], env: Record<string, string> = {}): Run {
  const { PATH = "", HOME = "", TMPDIR } = process.env;
  const usual = { PATH, HOME, ...(TMPDIR !== undefined && { TMPDIR }), BASEDXL_NVCC: "off" };
  const nothing = { calls: [], library: {}, disk: null, before: "", during: [], mended: [] };
  const limitMs = 60_000;
  return { folder, args, env: { ...usual, ...env }, limitMs, ...nothing };
}

/** What is to be started, with the faults in place. */
export function commandOf(run: Run): { command: string[]; env: Record<string, string> } {
  const { folder, args, calls, library, disk, before } = run;
  const shell = before === "" ? [] : ["/bin/sh", "-c", `${before}; exec "$0" "$@"`];
  const plain = [...shell, process.execPath, ...args];
  const { report, control, choices } = recordsOf(folder);
  const called = calls.length === 0 ? plain : [injector, report, ...calls, "--", ...plain];
  const command = disk
    ? onFaultyDisk(join(folder, disk.folder), { choices, ...disk }, called)
    : called;
  if (Object.keys(library).length === 0) return { command, env: run.env };
  writeFileSync(control, "");
  return { command, env: { ...run.env, ...libraryFaults(control, library) } };
}

/** Runs it to its end. */
export async function ended(run: Run): Promise<Ended> {
  const { folder, during, limitMs } = run;
  const { command, env } = commandOf(run);
  const child = Bun.spawn(command, { cwd: folder, env, stdout: "pipe", stderr: "pipe" });
  const giveUp = setTimeout(() => child.kill("SIGKILL"), limitMs);
  const seen = watch(child.stderr, (text) => {
    if (!/Step \d/.test(text)) return false;
    for (const each of during) each(child);
    return true;
  });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), seen]);
  await child.exited;
  clearTimeout(giveUp);
  const exitCode = child.exitCode ?? 128 + (signalNumbers[child.signalCode ?? ""] ?? 0);
  return { exitCode, stdout, stderr, hits: hitsOf(run) };
}

/** What lies in a folder: hashes of files, targets of links. `ignored` are files of no account. */
export function filesIn(folder: string, ignored: RegExp): Record<string, string> {
  const found: Record<string, string> = {};
  for (const name of readdirSync(folder, { recursive: true }) as string[]) {
    const path = join(folder, name);
    const stat = lstatSync(path);
    if (stat.isDirectory() || ignored.test(name)) continue;
    found[name] = stat.isSymbolicLink()
      ? readlinkSync(path)
      : Bun.hash(readFileSync(path)).toString(36);
  }
  return found;
}

/** How often each fault struck, those of system calls first. */
export function hitsOf({ folder, calls, library, disk }: Run): number[] {
  const { report, control, choices } = recordsOf(folder);
  const text = calls.length > 0 && existsSync(report) ? readFileSync(report, "utf8") : "";
  const lines = text.split("\n").filter((line) => line !== "");
  const kinds = Object.keys(library) as (keyof LibraryFaults)[];
  return [
    ...lines.map((line) => Number(line.split(" ")[1])),
    ...kinds.map((call) => libraryCounts(control, call).hits),
    ...(Object.keys(disk?.faults ?? {}) as (keyof DiskFaults)[]).map(
      (call) => diskCounts(choices, call).hits,
    ),
  ];
}

/** Whether what a program wrote to stderr is of a crash. */
export function isCrash(stderr: string): boolean {
  return stderr.split("\n").some((line) => crash.test(line));
}

// --- internal ---

/** A line of an end that is none of ours. */
const crash = /^\s+at |panic|Internal error|Segmentation|oh no:/;

/** Where counts of calls are, and which of the library's fail. */
export function recordsOf(folder: string) {
  return {
    report: join(folder, "calls"),
    control: join(folder, "library-calls"),
    choices: join(folder, "disk-calls"),
  };
}

const signalNumbers: Record<string, number> = { SIGHUP: 1, SIGINT: 2, SIGKILL: 9, SIGTERM: 15 };

/** All that is written; `found` is asked until it says that it has seen what it looks for. */
async function watch(
  stream: ReadableStream<Uint8Array>,
  found: (text: string) => boolean,
): Promise<string> {
  let text = "";
  let isFound = false;
  const decoder = new TextDecoder();
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    if (!isFound) isFound = found(text);
  }
  return text;
}
