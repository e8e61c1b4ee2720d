/**
 * `bun run fuzz`: every parser of foreign bytes, until each has had its cases or minutes, as many
 * at a time as there are cores. A run goes on where the last one stopped; what it found is in the
 * folder of --out.
 *
 *     bun run fuzz                      100,000 cases of each target
 *     bun run fuzz --minutes 60         an hour of each
 *     bun run fuzz --cases 10000000 --targets prompts,images
 *     bun run fuzz --jobs 1             one parser at a time
 *     bun run fuzz --repeat prompts:1234 --seed 1    one case again, with its stack
 *     bun run fuzz --report FILE --out a,b    a table of what runs in these folders have done, and
 *                                             of what the file says that others did
 *     bun run fuzz --resume FILE        goes on where such a table ends
 */
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { writeGoldenModel } from "../../src/bench/support/golden-model.ts";
import { nativeTargets, runNative } from "./native.ts";
import { noteCommit, readState, reportOf, stateOfReport, writeState } from "./progress.ts";
import { runTarget } from "./supervise.ts";
import { openTarget, targetNames } from "./targets.ts";
import { runCase } from "./worker.ts";

export interface Wanted {
  seed: number;
  /** Cases in all, those of earlier runs among them. */
  cases: number;
  /** Of this run. */
  seconds: number;
  out: string;
  log(line: string): void;
  /** Called now and then. */
  save(): void;
}

const { values } = parseArgs({
  options: {
    cases: { type: "string" },
    minutes: { type: "string" },
    targets: { type: "string" },
    seed: { type: "string", default: "1" },
    out: { type: "string", default: "fuzz-out" },
    jobs: { type: "string", default: String(availableParallelism()) },
    repeat: { type: "string" },
    report: { type: "string" },
    resume: { type: "string" },
  },
});

const all = [...targetNames, ...nativeTargets];
const seed = Number(values.seed);
writeGoldenModel();
if (values.repeat !== undefined) {
  const [name = "", index] = values.repeat.split(":");
  const reason = await runCase(await openTarget(name), seed, Number(index));
  process.stdout.write(`${reason ?? "no crash"}\n`);
} else if (values.report !== undefined) {
  const isCrash = async (name: string, ofSeed: number, index: number) =>
    (await runCase(await openTarget(name), ofSeed, index)) !== null;
  const earlier = existsSync(values.report) ? readFileSync(values.report, "utf8") : "";
  writeFileSync(values.report, await reportOf(values.out.split(","), all, isCrash, earlier));
} else process.exitCode = await fuzz();

async function fuzz(): Promise<number> {
  const { out } = values;
  mkdirSync(join(out, "crashes"), { recursive: true });
  const { resume } = values;
  const earlier = resume === undefined ? {} : stateOfReport(readFileSync(resume, "utf8"), seed);
  const state = { ...earlier, ...readState(out, seed) };
  const log = (line: string) => {
    process.stdout.write(`${line}\n`);
    appendFileSync(join(out, "fuzz.log"), `${new Date().toISOString()} ${line}\n`);
  };
  const save = () => writeState(out, seed, state);
  const minutes = values.minutes === undefined ? Number.POSITIVE_INFINITY : Number(values.minutes);
  const cases = Number(values.cases ?? (values.minutes === undefined ? 100_000 : 1e15));
  const wanted: Wanted = { seed, cases, seconds: minutes * 60, out, log, save };
  const names = values.targets?.split(",") ?? all;
  const unknown = names.find((name) => !all.includes(name));
  if (unknown !== undefined) throw new Error(`no target ${unknown}: ${all.join(", ")}`);
  const runOne = async (name: string) => {
    state[name] ??= { next: 0, seconds: 0, crashes: [] };
    const progress = state[name];
    if (progress.next < cases) noteCommit(progress, join(import.meta.dir, "../.."));
    const run = nativeTargets.includes(name) ? runNative : runTarget;
    const isRun = await run(name, progress, wanted);
    save();
    const rate = Math.round(progress.next / Math.max(progress.seconds, 0.001));
    const found = `${progress.crashes.length} crashes`;
    if (isRun) log(`${name}: ${progress.next} cases, ${rate} per second, ${found}`);
  };
  const waiting = [...names];
  const lane = async () => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) await runOne(name);
  };
  await Promise.all(Array.from({ length: Math.max(1, Number(values.jobs) || 1) }, lane));
  return names.every((name) => state[name]!.crashes.length === 0) ? 0 : 1;
}
