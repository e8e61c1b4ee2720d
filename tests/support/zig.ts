/**
 * Steps of build.zig, run by the compiler that builds the library, and how many tests each must
 * run: a file that is no longer imported, or a filter without a match, would silently lose tests.
 */
import { compilerOfPackages } from "../../src/setup/compiler.ts";
import { zigEnvironment } from "../../src/setup/native.ts";
import { repositoryRoot as root } from "../../src/setup.ts";
import { readSources, type Source } from "./sources.ts";

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

/** Blocks of the tree that `zig build STEP` must run, of test-cuda those of its own files: blocks
 * without a name in what it imports may run as well, as far as the compiler looks at them. */
export function testBlocks(
  step: "test" | "test-cuda",
  sources: Source[] = readSources(["{zig,cuda}/**/*.zig", "build.zig"]),
): number {
  const ofStep = sources.filter(({ name }) => isCudaTest(name) === (step === "test-cuda"));
  return ofStep.reduce((sum, { text }) => sum + [...text.matchAll(anyTest)].length, 0);
}

/** How many tests a `zig build STEP --summary all` ran, passed, failed or skipped. */
export function testsRun(summary: string): number {
  return Number(/run test .*\((\d+) total\)/.exec(summary)?.[1] ?? onlyPassed(summary));
}

// --- internal ---

const anyTest = /^ *test (?:"|\w+ \{|\{)/gm;

/** As build.zig filters them. */
function isCudaTest(name: string): boolean {
  if (name === "zig/patch/exchange_test.zig") return false;
  return /^zig\/(backend\/cuda\/tests[./]|emulator\/|test_cuda)|_test\.zig$/.test(name);
}

function onlyPassed(summary: string): string {
  return /run test (\d+) pass(?:ed)?\b/.exec(summary)?.[1] ?? "0";
}
