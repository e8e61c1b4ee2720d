/**
 * Recorded jobs, done again by zig/replay.zig under valgrind and under ThreadSanitizer: first what
 * each must find, then the jobs, in which there must be nothing.
 */
import { join } from "node:path";
import { recordRanks, recordSample } from "./jobs.ts";
import { Recorder } from "./record.ts";
import { run, zigBuild } from "./tools.ts";

const memcheckCode = 99;
/** ThreadSanitizer's own. */
const raceCode = 66;
const memcheck = [
  ...["valgrind", `--error-exitcode=${memcheckCode}`, "--quiet", "--num-callers=24"],
  // Threads of a pool wait for each other by turns.
  ...["--fair-sched=yes", "--leak-check=full", "--errors-for-leak-kinds=definite,possible"],
];

export async function runValgrind(folder: string): Promise<boolean> {
  if (Bun.which("valgrind") === null) {
    process.stderr.write("error: valgrind is missing: the system's package of that name has it.\n");
    return false;
  }
  if (!(await zigBuild("replay"))) return false;
  const command = [...memcheck, "zig-out/bin/replay"];
  if ((await run([...command, "undefined"])) !== memcheckCode) return false;
  const calls = join(folder, "sample.json");
  const recorder = new Recorder();
  await recordSample(recorder, folder);
  recorder.finish(calls);
  return (await run([...command, calls])) === 0;
}

export async function findRaces(folder: string): Promise<boolean> {
  const prefix = "zig-out/races";
  if (!(await zigBuild("replay", "-Dfind-races", "--prefix", prefix))) return false;
  const program = join(prefix, "bin/replay");
  if ((await run([program, "race"])) !== raceCode) return false;
  const calls = join(folder, "ranks.json");
  const recorder = new Recorder();
  await recordRanks(recorder, folder);
  recorder.finish(calls);
  if ((await run([program, calls])) !== 0) return false;
  const filters = ["devices.failures_test.", "transport."].map((name) => `-Dtest-filter=${name}`);
  return await zigBuild("test-cuda", "-Dfind-races", ...filters);
}
