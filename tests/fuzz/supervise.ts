/**
 * Runs a target in a process of its own and watches it: one that hangs, dies or takes too much
 * memory has its case written down, and the next process goes on after it.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Wanted } from "./main.ts";
import type { Progress } from "./progress.ts";
import { Random } from "./random.ts";
import { openTarget } from "./targets.ts";
import type { WorkerLine } from "./worker.ts";

/** A process that tells nothing while it computes for so long hangs. */
const silentCpuMsMax = 60_000;
/** One that does not compute, too: machines that run tests are busy. */
const silentMsMax = 20 * 60_000;
const memoryBytesMax = 2 ** 31;
/** Images have up to 128 million pixels, of which 24 bytes are held while alpha is read. */
const memoryBytesMaxOf: Readonly<Record<string, number>> = { pixels: 2 ** 32 };
/** The same crash again and again is known after so many. */
const crashCountMax = 100;

export async function runTarget(
  name: string,
  progress: Progress,
  wanted: Wanted,
): Promise<boolean> {
  const startMs = performance.now();
  const before = progress.seconds;
  const elapsed = () => (performance.now() - startMs) / 1000;
  while (progress.next < wanted.cases && elapsed() < wanted.seconds) {
    const hasTime = () => {
      progress.seconds = before + elapsed();
      return elapsed() < wanted.seconds;
    };
    await runProcess(name, progress, wanted, hasTime);
    hasTime();
    if (progress.crashes.length > crashCountMax) {
      wanted.log(`${name}: more than ${crashCountMax} crashes; mend them first`);
      break;
    }
  }
  return true;
}

// --- internal ---

async function runProcess(
  name: string,
  progress: Progress,
  wanted: Wanted,
  hasTime: () => boolean,
): Promise<void> {
  // The worker's own folder for temporary files goes with it.
  const parent = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
  const folder = mkdtempSync(join(parent, "basedxl-fuzz-run-"));
  const place = join(folder, "case");
  const script = Bun.fileURLToPath(new URL("./worker.ts", import.meta.url));
  const { seed, cases } = wanted;
  const words = [name, seed, progress.next, cases, place].map(String);
  const child = Bun.spawn([process.execPath, script, ...words], {
    env: { ...process.env, TMPDIR: folder },
    stdout: "pipe",
    stderr: "inherit",
  });
  const memoryMax = memoryBytesMaxOf[name] ?? memoryBytesMax;
  let reason: string | null = null;
  let [heardMs, heardCpuMs] = [performance.now(), 0];
  let isStopped = false;
  const stop = (why: string | null) => {
    reason = why;
    isStopped = true;
    child.kill("SIGKILL");
  };
  const timer = setInterval(() => {
    const isSilent =
      performance.now() - heardMs > silentMsMax || cpuMsOf(child.pid) - heardCpuMs > silentCpuMsMax;
    if (isSilent) stop("it hangs");
    else if (memoryOf(child.pid) > memoryMax) stop(`it takes more than ${memoryMax / 2 ** 20} MiB`);
    else if (!hasTime()) stop(null);
  }, 500);
  let isDone = false;
  try {
    for await (const line of linesOf(child.stdout)) {
      [heardMs, heardCpuMs] = [performance.now(), cpuMsOf(child.pid)];
      const { next, crash, isDone: ended } = JSON.parse(line) as WorkerLine;
      progress.next = next;
      isDone = ended === true;
      // Servers that the target started would keep it.
      if (isDone) child.kill("SIGKILL");
      if (crash !== undefined) await record(name, progress, wanted, crash);
      wanted.save();
    }
  } finally {
    clearInterval(timer);
    child.kill("SIGKILL");
  }
  await child.exited;
  if (!isDone && !isStopped)
    reason = `its process ended with ${child.exitCode ?? child.signalCode}`;
  if (reason !== null) {
    const index = caseIn(place) ?? progress.next;
    await record(name, progress, wanted, { index, reason });
    progress.next = Math.max(progress.next, index + 1);
  }
  rmSync(folder, { recursive: true, force: true });
}

async function record(
  name: string,
  progress: Progress,
  { log, out, seed }: Wanted,
  crash: { index: number; reason: string },
): Promise<void> {
  // By its kind and its places: messages differ from case to case.
  const [first = "", ...places] = crash.reason.split("\n");
  const kind = /^\w+/.exec(first)?.[0] ?? "";
  const key = places.length === 0 ? first : `${kind} ${places.slice(0, 2).join(" ").trim()}`;
  if (progress.crashes.some(({ reason }) => reason === key)) return;
  progress.crashes.push({ index: crash.index, reason: key });
  log(`CRASH ${name}:${crash.index} (--seed ${seed}): ${crash.reason}`);
  const path = join(out, "crashes", `${name}-${seed}-${crash.index}.txt`);
  writeFileSync(path, `${crash.reason}\n\n${await shownCase(name, seed, crash.index)}\n`);
}

async function shownCase(name: string, seed: number, index: number): Promise<string> {
  try {
    return Bun.inspect((await openTarget(name)).make(new Random(seed, index)));
  } catch (error) {
    return `it cannot be made: ${error}`;
  }
}

function caseIn(place: string): number | null {
  try {
    return readFileSync(place).readDoubleLE(0);
  } catch {
    return null;
  }
}

/** Resident memory; 0 where the process is gone, or there is no /proc. */
function memoryOf(pid: number): number {
  try {
    return 4096 * Number(readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1]);
  } catch {
    return 0;
  }
}

/** Of all its threads; 0 likewise. A tick of Linux has 10 ms. */
function cpuMsOf(pid: number): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
    return 10 * (Number(fields[11]) + Number(fields[12]));
  } catch {
    return 0;
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of stream) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}
