/**
 * The table of faults, a test a row: of each, the sentence, the exit code, the files and the next
 * run are looked at. The seed chooses a sample; all rows by `bun run faults`.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { buildEmulator } from "../../src/setup/emulator.ts";
import { sampled, seedName } from "../support/seed.ts";
import { problemsOf } from "./fault.ts";
import { noUsersReason } from "./limit-faults.ts";
import { processProblems, processRows } from "./process-rows.ts";
import { diskRows, gpuRows, pairRows, processLimitRows, programRows, pull } from "./rows.ts";
import { serverProblems } from "./server-check.ts";
import { serverDiskRows, serverGpuRows, serverRows } from "./server-rows.ts";
import { sessionPairs, sessionRows } from "./session-rows.ts";
import { libraryFaults, noFaultyDiskReason, noToolsReason } from "./tools.ts";

// Each starts programs, and the cores may be busy.
setDefaultTimeout(120_000);

const isWhole = process.env.BASEDXL_FAULTS === "all";
// Not in the first row that needs it, whose time is limited.
if (isWhole) await buildEmulator(() => {});
const noTools = await noToolsReason();
if (noTools !== null) console.warn(`Not tested here: faults of calls: ${noTools}`);
const noDisk = noTools === null ? noFaultyDiskReason() : null;
if (noDisk !== null) console.warn(`Not tested here: disks that are slow or dying: ${noDisk}`);
const noUsers = noUsersReason();
if (noUsers !== null) console.warn(`Not tested here: limits of processes: ${noUsers}`);
const folder = mkdtempSync(join(tmpdir(), "basedxl-faults-"));
afterAll(() => {
  pull.hub.stop();
  rmSync(folder, { recursive: true, force: true });
});

test("there are 60 rows of single faults, each once", () => {
  const disks = [...diskRows, ...serverDiskRows, ...processLimitRows];
  const rows = [
    ...programRows,
    ...disks,
    ...gpuRows,
    ...processRows,
    ...[...serverRows, ...serverGpuRows],
    ...sessionRows,
  ];
  expect(rows.length).toBeGreaterThanOrEqual(60);
  const names = [...programRows, ...processLimitRows, ...diskRows, ...gpuRows].map(
    ({ name }) => name,
  );
  expect(new Set(names).size).toBe(names.length);
});

describe.skipIf(noTools !== null)(`a program (${seedName})`, () => {
  const rows = [...some(programRows, 3), ...some(pairRows, 2), ...(isWhole ? gpuRows : [])];
  test.each(rows)("$name", async (row) => expect(await problemsOf(row)).toEqual([]));
});

describe.skipIf((noTools ?? noDisk) !== null)(`a disk (${seedName})`, () => {
  test.each(some(diskRows, 1))("$name", async (row) => expect(await problemsOf(row)).toEqual([]));
  test.each(some(serverDiskRows, 1))("$name", async (row) => {
    expect(await serverProblems(row)).toEqual([]);
  });
});

describe.skipIf(!isWhole || noUsers !== null)("a limit of processes", () => {
  test.each(processLimitRows)("$name", async (row) => {
    expect(await problemsOf(row)).toEqual([]);
  });
});

describe.skipIf(!isWhole || noTools !== null)("one of two processes", () => {
  test.each(processRows)(
    "$name",
    async (row) => {
      expect(await processProblems(row)).toEqual([]);
    },
    240_000,
  );
});

describe.skipIf(noTools !== null)(`a server (${seedName})`, () => {
  test.each([...some(serverRows, 1), ...(isWhole ? serverGpuRows : [])])("$name", async (row) => {
    expect(await serverProblems(row)).toEqual([]);
  });
});

describe.skipIf(noTools !== null)(`a session (${seedName})`, () => {
  // All in one process. Those on emulated GPUs take seconds.
  const all = [...sessionRows, ...sessionPairs];
  const rows = isWhole ? all : all.filter(({ devices }) => devices === "cpu");
  let problems = new Map<string, string[]>();
  beforeAll(async () => {
    problems = await sessionProblems(rows.map(({ name }) => name));
  }, 600_000);
  test.each(rows)("$name", ({ name }) => expect(problems.get(name)).toEqual([]));
});

// --- internal ---

/** All, or so many. */
function some<T>(rows: readonly T[], count: number): readonly T[] {
  if (isWhole) return rows;
  return sampled(fc.shuffledSubarray([...rows], { minLength: count, maxLength: count }), 1).flat();
}

/** By row; what the process could not tell is missing. */
async function sessionProblems(names: readonly string[]): Promise<Map<string, string[]>> {
  const control = join(folder, "calls");
  writeFileSync(control, "");
  const { BASEDXL_FAULTS: _, ...rest } = process.env;
  const script = Bun.fileURLToPath(new URL("./session-run.ts", import.meta.url));
  const child = Bun.spawn([process.execPath, script], {
    env: { ...rest, ...libraryFaults(control, {}) },
    stdin: new Blob([JSON.stringify(names)]),
    stdout: "pipe",
    stderr: "inherit",
  });
  const text = await new Response(child.stdout).text();
  const lines = text.split("\n").filter((line) => line.startsWith("{"));
  return new Map(
    lines.map((line) => {
      const { name, problems } = JSON.parse(line) as { name: string; problems: string[] };
      return [name, problems];
    }),
  );
}
