/**
 * `bun run check`: types, lint and format, Zig's format, and the house rules. Every step runs and
 * reports, whatever the ones before said; the exit code is 1 when any failed.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { repositoryRoot } from "../setup.ts";
import { compilerOfPackages } from "./compiler.ts";
import { runEntry } from "./entry.ts";

interface Step {
  name: string;
  command: string[];
}

process.exitCode = await runEntry(process.argv.slice(2), async () => {
  const failed: string[] = [];
  for (const { name, command } of steps()) {
    const startMs = performance.now();
    const { exitCode } = Bun.spawnSync(command, {
      cwd: repositoryRoot,
      stdio: ["ignore", "inherit", "inherit"],
    });
    const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
    console.log(`${exitCode === 0 ? "ok    " : "FAILED"} ${name} (${seconds} s)`);
    if (exitCode !== 0) failed.push(name);
  }
  console.log(failed.length === 0 ? "All checks passed." : `Failed: ${failed.join(", ")}.`);
  return failed.length === 0 ? 0 : 1;
});

// --- internal ---

function steps(): Step[] {
  const bun = process.execPath;
  const packages = join(repositoryRoot, "node_modules");
  const zig = compilerOfPackages(repositoryRoot);
  const zigSources = ["build.zig", "zig"].filter((name) => existsSync(join(repositoryRoot, name)));
  return [
    { name: "types", command: [bun, join(packages, "typescript/bin/tsc"), "--noEmit"] },
    {
      name: "lint and format",
      command: [bun, join(packages, "@biomejs/biome/bin/biome"), "check"],
    },
    { name: "Zig format", command: [zig?.path ?? "zig", "fmt", "--check", ...zigSources] },
    { name: "house rules", command: [bun, "test", "tests/tidy.test.ts"] },
  ];
}
