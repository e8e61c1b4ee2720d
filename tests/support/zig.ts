/**
 * Steps of build.zig, run by the compiler that builds the library, and how many tests each must
 * run: a file that is no longer imported, or a filter without a match, would silently lose tests.
 */
import { compilerOfPackages } from "../../src/setup/compiler.ts";
import { zigEnvironment } from "../../src/setup/native.ts";
import { repositoryRoot as root } from "../../src/setup.ts";
import { readSources, type Source, zigImports } from "./sources.ts";

/** Runs `zig build` with these steps and options to its end, beside whatever else there is. */
export async function zigBuild(...steps: string[]) {
  const zig = compilerOfPackages(root);
  if (!zig) throw new Error("the set-up left no Zig compiler");
  const env = zigEnvironment(root, zig);
  const child = Bun.spawn([zig.path, "build", ...steps], { cwd: root, env, stderr: "pipe" });
  const [stdout, stderr, exitCode] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  return { exitCode, stdout, stderr };
}

/** Blocks of the tree that `zig build STEP` must run. */
export function testBlocks(
  step: "test" | "test-cuda",
  sources: Source[] = readSources(["{zig,cuda}/**/*.zig", "build.zig"]),
): number {
  const ofStep = sources.filter(({ name }) => isCudaTest(name) === (step === "test-cuda"));
  const own = ofStep.reduce((sum, source) => sum + blocksOf(source, anyTest), 0);
  if (step === "test") return own;
  // Blocks without a name pass every filter: those of the files that the tests import.
  const reached = reachedFrom("zig/test_cuda.zig", sources);
  const others = sources.filter(({ name }) => reached.has(name) && !isCudaTest(name));
  return own + others.reduce((sum, source) => sum + blocksOf(source, namelessTest), 0);
}

/** How many tests a `zig build STEP --summary all` ran, passed, failed or skipped. */
export function testsRun(summary: string): number {
  return Number(/run test .*\((\d+) total\)/.exec(summary)?.[1] ?? onlyPassed(summary));
}

// --- internal ---

const anyTest = /^ *test (?:"|\w+ \{|\{)/gm;
const namelessTest = /^ *test \{/gm;

/** As build.zig filters them. */
function isCudaTest(name: string): boolean {
  if (name === "zig/patch/exchange_test.zig") return false;
  return /^zig\/(backend\/cuda\/tests[./]|emulator\/|bench\/|test_cuda)|_test\.zig$/.test(name);
}

function blocksOf({ text }: Source, pattern: RegExp): number {
  return [...text.matchAll(pattern)].length;
}

function onlyPassed(summary: string): string {
  return /run test (\d+) pass(?:ed)?\b/.exec(summary)?.[1] ?? "0";
}

function reachedFrom(start: string, sources: Source[]): Set<string> {
  const byName = new Map(sources.map((source) => [source.name, source]));
  const reached = new Set<string>();
  const waiting = [start];
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    const source = byName.get(name);
    if (!source || reached.has(name)) continue;
    reached.add(name);
    waiting.push(...zigImports(source));
  }
  return reached;
}
