/**
 * The targets of zig/fuzz.zig, which libFuzzer runs guided by coverage. Needs clang and its
 * runtime (Debian: clang and libclang-rt-dev); without them they are left out, which is said.
 */
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Wanted } from "./main.ts";
import { nativeSeeds } from "./native-seeds.ts";
import type { Progress } from "./progress.ts";

export const nativeTargets: readonly string[] = Object.keys(nativeSeeds);

const root = join(import.meta.dir, "../..");
const program = join(root, "zig-out/bin/fuzz-weights");
let built: Promise<boolean> | null = null;

/** False where the target cannot run here. */
export async function runNative(
  name: string,
  progress: Progress,
  wanted: Wanted,
): Promise<boolean> {
  built ??= build(wanted);
  if (!(await built)) return false;
  const corpus = join(wanted.out, `corpus-${name}`);
  mkdirSync(corpus, { recursive: true });
  for (const [i, seed] of nativeSeeds[name]!.entries()) writeFileSync(join(corpus, `${i}`), seed);
  const startMs = performance.now();
  for (let round = 0; round < 20 && progress.next < wanted.cases; round++) {
    const seconds = wanted.seconds - (performance.now() - startMs) / 1000;
    if (seconds < 1) break;
    if (await runOnce(name, corpus, progress, wanted, seconds)) break;
  }
  progress.seconds += (performance.now() - startMs) / 1000;
  return true;
}

// --- internal ---

async function build({ log }: Wanted): Promise<boolean> {
  // Not in the way of other targets, whose time runs.
  const child = Bun.spawn([join(root, "node_modules/.bin/zig"), "build", "fuzz"], {
    ...{ cwd: root, stdout: "ignore", stderr: "pipe" },
  });
  const text = await new Response(child.stderr).text();
  const isBuilt = (await child.exited) === 0;
  if (!isBuilt) log(`weights: left out, zig build fuzz fails: ${text.slice(-500)}`);
  return isBuilt;
}

/** True once the cases or the time are used up, false after a crash. */
async function runOnce(
  name: string,
  corpus: string,
  progress: Progress,
  { cases, log, out, seed }: Wanted,
  seconds: number,
): Promise<boolean> {
  const kept = () =>
    readdirSync(join(out, "crashes")).filter((file) => file.startsWith(`${name}-`));
  const before = kept();
  const count = Math.min(cases - progress.next, 2 ** 30);
  const limits = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=16384", "-print_final_stats=1"];
  const ends = [
    `-runs=${count}`,
    ...(Number.isFinite(seconds) ? [`-max_total_time=${Math.ceil(seconds)}`] : []),
  ];
  const prefix = `-artifact_prefix=${join(out, "crashes")}/${name}-`;
  const child = Bun.spawn(
    [program, ...limits, ...ends, `-seed=${seed + progress.next}`, prefix, corpus],
    {
      env: { ...process.env, BASEDXL_FUZZ_TARGET: name },
      stderr: "pipe",
      stdout: "ignore",
    },
  );
  const text = await new Response(child.stderr).text();
  await child.exited;
  const executed = /number_of_executed_units: (\d+)/.exec(text)?.[1];
  progress.next += Number(executed ?? 1);
  if (child.exitCode === 0) return true;
  const reason = /panic: .*|ERROR: .*/.exec(text)?.[0] ?? `it ended with ${child.exitCode}`;
  const found = kept().filter((file) => !before.includes(file));
  if (!progress.crashes.some((crash) => crash.reason === reason)) {
    progress.crashes.push({ index: found[0] ?? "none", reason });
  }
  log(`CRASH ${name} (${found.join(", ")}): ${text.slice(-2000)}`);
  return false;
}
