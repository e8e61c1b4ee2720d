/**
 * Recorded jobs, done again by zig/replay.zig under valgrind and under ThreadSanitizer: first what
 * each must find, then the jobs, in which there must be nothing.
 */
import { rmSync, symlinkSync } from "node:fs";
import { basename, join } from "node:path";
import { emulatorPath } from "../../src/native/library.ts";
import { resources } from "../../src/resources.ts";
import { buildEmulator } from "../../src/setup/emulator.ts";
import { repositoryRoot } from "../../src/setup.ts";
import { gpuCount, recordGpus } from "./gpu-jobs.ts";
import { recordRanks, recordSample } from "./jobs.ts";
import { Recorder } from "./record.ts";
import { run, zigBuild } from "./tools.ts";

const memcheckCode = 99;
/** ThreadSanitizer's own. */
const raceCode = 66;
const races = "zig-out/races";
const gpuEnvironment = {
  BASEDXL_EMULATOR_GPUS: `${gpuCount}`,
  // As build.zig: its unused copy of ThreadSanitizer's runtime needs room for its threads' state.
  GLIBC_TUNABLES: "glibc.rtld.optional_static_tls=1048576",
};
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

/** The replay opens the emulated driver at the recording's path: a link, to the one for each. */
async function findGpuRaces(folder: string, program: string): Promise<boolean> {
  await buildEmulator(() => {});
  const emulator = emulatorPath();
  const link = join(folder, "emulated-driver");
  const calls = join(folder, "gpus.json");
  symlinkSync(emulator, link);
  resources.emulator = () => link;
  const recorder = new Recorder();
  try {
    await recordGpus(recorder, folder);
  } finally {
    recorder.finish(calls);
    resources.emulator = () => emulator;
  }
  rmSync(link);
  symlinkSync(join(repositoryRoot, races, "lib", basename(emulator)), link);
  const environment = { ...process.env, ...gpuEnvironment };
  const withRace = { BASEDXL_EMULATOR_RACE: "1", TSAN_OPTIONS: "halt_on_error=1" };
  if ((await run([program, calls], { ...environment, ...withRace })) !== raceCode) return false;
  return (await run([program, calls], environment)) === 0;
}

export async function findRaces(folder: string): Promise<boolean> {
  const built = await zigBuild("replay", "emulator", "-Dfind-races", "--prefix", races);
  if (!built) return false;
  const program = join(races, "bin/replay");
  if ((await run([program, "race"])) !== raceCode) return false;
  const calls = join(folder, "ranks.json");
  const recorder = new Recorder();
  await recordRanks(recorder, folder);
  recorder.finish(calls);
  if ((await run([program, calls])) !== 0) return false;
  if (!(await findGpuRaces(folder, program))) return false;
  const filters = ["devices.failures_test.", "transport."].map((name) => `-Dtest-filter=${name}`);
  return await zigBuild("test-cuda", "-Dfind-races", ...filters);
}
