/**
 * `bun run check`: types, lint and format, Zig's format, the house rules, and the library for every
 * target. Every step runs and reports, also after a failure; the exit code is 1 when any failed.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { BasedXLError } from "../errors.ts";
import { repositoryRoot } from "../setup.ts";
import { compilerOfPackages } from "./compiler.ts";
import { runEntry } from "./entry.ts";
import { buildFor, buildTwice, targets } from "./targets.ts";

interface Step {
  name: string;
  /** Resolves to whether it passed; a failure is already printed. */
  run(): Promise<boolean>;
}

process.exitCode = await runEntry(process.argv.slice(2), async () => {
  const failed: string[] = [];
  for (const { name, run } of steps()) {
    const startMs = performance.now();
    const passed = await run();
    const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
    console.log(`${passed ? "ok    " : "FAILED"} ${name} (${seconds} s)`);
    if (!passed) failed.push(name);
  }
  console.log(failed.length === 0 ? "All checks passed." : `Failed: ${failed.join(", ")}.`);
  return failed.length === 0 ? 0 : 1;
});

// --- internal ---

function steps(): Step[] {
  const bun = process.execPath;
  const root = repositoryRoot;
  const packages = join(root, "node_modules");
  const zig = compilerOfPackages(root);
  const zigSources = ["build.zig", "zig"].filter((name) => existsSync(join(root, name)));
  return [
    tool("types", [bun, join(packages, "typescript/bin/tsc"), "--noEmit"]),
    tool("types of the page", [
      ...[bun, join(packages, "typescript/bin/tsc"), "--noEmit"],
      ...["--project", "src/serve/page/client"],
    ]),
    tool("lint and format", [bun, join(packages, "@biomejs/biome/bin/biome"), "check"]),
    tool("Zig format", [zig?.path ?? "zig", "fmt", "--check", ...zigSources]),
    tool("house rules", [bun, "test", "tests/tidy"]),
    ...(zig === null ? [] : buildSteps({ root, zig })),
  ];
}

function buildSteps(place: Parameters<typeof buildTwice>[0]): Step[] {
  const cross = [targets.linuxArm64, targets.macosArm64];
  return [
    work(`the same ${targets.linuxX64} library from two folders`, () => buildTwice(place)),
    ...cross.map((target) => work(`library for ${target}`, () => buildFor(target, place))),
  ];
}

function tool(name: string, command: string[]): Step {
  const cwd = repositoryRoot;
  return {
    name,
    async run() {
      return (
        Bun.spawnSync(command, { cwd, stdio: ["ignore", "inherit", "inherit"] }).exitCode === 0
      );
    },
  };
}

function work(name: string, run: () => Promise<unknown>): Step {
  return {
    name,
    async run() {
      try {
        await run();
        return true;
      } catch (error) {
        if (!(error instanceof BasedXLError)) throw error;
        console.error(error.message);
        return false;
      }
    },
  };
}
