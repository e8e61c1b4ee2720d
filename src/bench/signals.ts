/**
 * `bun run bench posts`: what it costs ranks of one process to tell each other of each part as soon
 * as it is there, and what telling of several at once would save (zig/bench/signals.zig).
 */
import { BasedXLError } from "../errors.ts";
import { compilerOfPackages } from "../setup/compiler.ts";
import { zigEnvironment } from "../setup/native.ts";
import { repositoryRoot as root } from "../setup.ts";
import { badOption } from "./flags.ts";
import { renderTable } from "./report.ts";

/** Takes no arguments: the table is always the same one. */
export async function run(args: string[]): Promise<number> {
  if (args.length > 0) throw badOption(`bench posts takes no flags, not ${args.join(" ")}.`);
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
  const heads = ["ranks", "parts at once", "CPU us", "against each", "wall us", "against each"];
  process.stdout.write(
    `A step of 155 parts; CPU time of one rank, wall time of all, work included:\n\n` +
      renderTable(heads, rows),
  );
  return 0;
}

// --- internal ---

function measure(): string {
  const zig = compilerOfPackages(root);
  if (!zig) throw new BasedXLError("setup", "No Zig compiler came with the packages.");
  const env = zigEnvironment(root, zig);
  const child = Bun.spawnSync([zig.path, "build", "posts"], { cwd: root, env });
  if (child.exitCode === 0) return child.stdout.toString();
  throw new BasedXLError("setup", `\`zig build posts\` failed:\n${child.stderr.toString()}`);
}
