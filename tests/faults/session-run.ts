/**
 * Runs rows of session-rows.ts in this process, which has libbasedxl_faults preloaded: the names
 * on standard input, a line of JSON with what is wrong for each on standard output.
 */
import { join } from "node:path";
import { BasedXLError } from "../../src/errors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { emulatedCallCount, failEmulatedCall } from "../../src/native/testing.ts";
import type { Session } from "../../src/pipeline/session.ts";
import { latentsOf, openFor, requestOf, type Work } from "../support/draw.ts";
import { emulated } from "../support/emulator.ts";
import { type Devices, type SessionRow, sessionPairs, sessionRows } from "./session-rows.ts";
import { chooseLibraryFaults, libraryCounts } from "./tools.ts";

const control = process.env.BASEDXL_FAULTS ?? "";
const never = 1e15;
const stallLimitMs = 300;
const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));

/** Open sessions with what their images should be. */
interface Kept {
  session: Session;
  bits: Float32Array;
}
const kept = new Map<Devices, Kept>();

const names = new Set(JSON.parse(await Bun.stdin.text()) as string[]);
for (const row of [...sessionRows, ...sessionPairs].filter(({ name }) => names.has(name))) {
  const problems = await problemsOf(row);
  process.stdout.write(`${JSON.stringify({ name: row.name, problems })}\n`);
}
for (const { session } of kept.values()) await session.close();

// --- internal ---

function workOf(devices: Devices): Work {
  const size = { model, width: 32, height: 96, stepCount: 3, guidanceScale: 1, splitBatch: false };
  if (devices === "cpu") return { ...size, rankCount: 3, threadCount: 2 };
  const gpu = emulated({ share: false, transport: devices });
  return { ...size, height: 64, rankCount: 2, gpu };
}

async function keptOf(devices: Devices): Promise<Kept> {
  const there = kept.get(devices);
  if (there !== undefined) return there;
  const session = await openFor(workOf(devices));
  const request = requestOf(workOf(devices));
  const bits = latentsOf(await session.image(request));
  // From the third image on, GPUs replay what they have captured.
  if (devices !== "cpu") await session.image(request);
  const made = { session, bits };
  kept.set(devices, made);
  return made;
}

async function problemsOf(row: SessionRow): Promise<string[]> {
  const { session, bits } = await keptOf(row.devices);
  // A session of its own where it is to open under the fault.
  const work = workOf(row.devices);
  const run = async (opens = row.faults.opening) => {
    const own = opens ? await openFor(work) : session;
    const testHooks = { fault: row.faults.rank, stallLimitMs };
    const request = requestOf({ ...work, ...(row.faults.rank && { testHooks }) });
    try {
      return latentsOf(await own.image(request));
    } finally {
      if (own !== session) await own.close();
    }
  };
  const counts = await countsOf(row, run);
  strike(row, counts);
  let end = await endOf(run);
  // A run that captures its graphs launches more than the next one, which replays them.
  for (let i = 0; i < 3 && !(end instanceof BasedXLError) && row.faults.call; i++) {
    const { call, gpu } = row.faults.call;
    strike(row, { ...counts, gpu: emulatedCallCount(call, gpu) });
    end = await endOf(run);
  }
  const isGone = row.faults.call?.call === "device";
  const again = isGone ? await endOf(() => run(true)) : null;
  const isStruck = counts.library === 0 || hitsOf(row) > 0;
  chooseLibraryFaults(control, {});
  if (row.devices !== "cpu") failEmulatedCall("none");
  if (row.isLost) await closeOnGpus();
  const { session: open } = await keptOf(row.devices);
  const next = latentsOf(await open.image(requestOf(work)));
  return [
    ...wrongEnd(row, end, bits),
    ...(again === null || isGpuFailure(again) ? [] : ["a lost GPU can be opened"]),
    ...(isStruck || row.faults.rank || row.faults.call ? [] : ["the fault did not strike"]),
    ...(Bun.deepEquals(next, bits) ? [] : ["the next image has other bits"]),
  ];
}

/** Sessions share the contexts of their process: only without any is there a new one. */
async function closeOnGpus(): Promise<void> {
  for (const [devices, { session }] of kept) {
    if (devices === "cpu") continue;
    kept.delete(devices);
    await session.close();
  }
}

function wrongEnd(row: SessionRow, end: BasedXLError | Float32Array, bits: Float32Array): string[] {
  if (!(end instanceof BasedXLError)) {
    if (!row.mayPass) return ["it did not fail"];
    return Bun.deepEquals(end, bits) ? [] : ["its image has other bits"];
  }
  const isLost = row.isLost ?? false;
  const isSaid = row.ends.test(end.message) && row.code.test(end.code);
  const isRight = isSaid && end.sessionLost === isLost;
  return isRight ? [] : [`it ends with ${end.code}: ${end.message}`];
}

function isGpuFailure(end: BasedXLError | Float32Array): boolean {
  return end instanceof BasedXLError && end.code === "gpu-failed";
}

/** Calls of a run, one of which is to fail. */
interface Counts {
  library: number;
  gpu: number;
}

async function countsOf(
  { faults, devices }: SessionRow,
  run: () => Promise<Float32Array>,
): Promise<Counts> {
  const { library, call, rank } = faults;
  const counts: Counts = { library: 0, gpu: 0 };
  if (library === undefined && call === undefined) return counts;
  if (library !== undefined) chooseLibraryFaults(control, { [library.call]: { first: never } });
  if (devices !== "cpu") failEmulatedCall("none");
  if (rank === undefined) await run();
  else await endOf(run);
  if (library !== undefined) counts.library = libraryCounts(control, library.call).calls;
  if (call !== undefined) counts.gpu = emulatedCallCount(call.call, call.gpu);
  return counts;
}

function strike({ faults: { library, call } }: SessionRow, counts: Counts): void {
  if (library !== undefined) {
    const first = 1 + Math.floor(library.at * counts.library);
    const chosen = { first, count: library.lasts ? never : 1 };
    chooseLibraryFaults(control, { [library.call]: chosen });
  }
  if (call !== undefined) failEmulatedCall(call.call, call.gpu, Math.floor(call.at * counts.gpu));
}

function hitsOf({ faults: { library } }: SessionRow): number {
  return library === undefined ? 0 : libraryCounts(control, library.call).hits;
}

/** The error of a run, or its result. */
async function endOf(run: () => Promise<Float32Array>): Promise<BasedXLError | Float32Array> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof BasedXLError) return error;
    throw error;
  }
}
