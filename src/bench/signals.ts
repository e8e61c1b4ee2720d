/**
 * `bun run bench signals`: the cost of signals between ranks of one process, with one signal per
 * exchanged tensor or one per group of tensors (zig/bench/signals.zig).
 */
import { BasedXLError, badOption } from "../errors.ts";
import { compilerOfPackages } from "../setup/compiler.ts";
import { zigEnvironment } from "../setup/native.ts";
import { repositoryRoot as root } from "../setup.ts";
import { renderTable } from "./report.ts";

/** Takes no arguments: the table is always the same one. */
export async function run(args: string[]): Promise<number> {
  if (args.length > 0) throw badOption(`bench signals takes no flags, not ${args.join(" ")}.`);
  const lines = measure().trim().split("\n");
  const numbers = lines.map((line) => line.split(" ").map(Number));
  const rows = numbers.map(([ranks = 0, group = 0, cpuNs = 0, wallNs = 0]) => {
    const [, , eachCpuNs = 0, eachWallNs = 0] =
      numbers.find((other) => other[0] === ranks && other[1] === 1) ?? [];
    const change = (ns: number, each: number) => `${((ns - each) / 1e3).toFixed(0)}`;
    return [
      String(ranks),
      String(group),
      (cpuNs / 1e3).toFixed(0),
      change(cpuNs, eachCpuNs),
      (wallNs / 1e3).toFixed(0),
      change(wallNs, eachWallNs),
    ];
  });
  const heads = ["ranks", "tensors per signal", "CPU us", "against 1", "wall us", "against 1"];
  process.stdout.write(
    `A step of 155 tensors; CPU time of one rank and wall time of all ranks, work included:\n\n` +
      renderTable(heads, rows),
  );
  return 0;
}

// --- internal ---

function measure(): string {
  const zig = compilerOfPackages(root);
  if (!zig) throw new BasedXLError("setup", "There is no Zig compiler among the packages.");
  const env = zigEnvironment(root, zig);
  const child = Bun.spawnSync([zig.path, "build", "bench-signals"], { cwd: root, env });
  if (child.exitCode === 0) return child.stdout.toString();
  throw new BasedXLError(
    "setup",
    `\`zig build bench-signals\` failed:\n${child.stderr.toString()}`,
  );
}
