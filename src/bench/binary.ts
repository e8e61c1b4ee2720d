/**
 * `bun run bench binary`: the binary's figures beside their limits. The binary is built in a
 * temporary folder. The exit code is 1 when a figure exceeds its limit.
 */
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { badOption } from "../errors.ts";
import { medianMs } from "../pipeline/timings.ts";
import { buildBinaryIn, ended, newFolder, start } from "./support/binary.ts";
import { noStraceReason, readTrace, tracedCalls } from "./support/strace.ts";

interface Figure {
  what: string;
  /** null: it cannot be measured here; `unit` holds the reason. */
  measured: number | null;
  allowed: number;
  unit: string;
}

const startCount = 21;

/** Takes no arguments. */
export async function run(args: string[]): Promise<number> {
  if (args.length > 0) throw badOption(`bench binary takes no flags, not ${args.join(" ")}.`);
  const folder = newFolder("home");
  try {
    const binary = buildBinaryIn(folder);
    const figures = [
      size(binary),
      ...(await versionTimes(binary, folder)),
      await imageDifference(binary, folder),
      ...(await effects(binary, folder)),
    ];
    for (const { what, measured, allowed, unit } of figures) {
      const value = measured === null ? "-" : String(Math.round(measured * 10) / 10);
      const mark = measured !== null && measured > allowed ? "  OVER" : "";
      process.stdout.write(
        `${what.padEnd(52)}${value.padStart(8)}${String(allowed).padStart(8)}  ${unit}${mark}\n`,
      );
    }
    return figures.every(({ measured, allowed }) => (measured ?? 0) <= allowed) ? 0 : 1;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

// --- internal ---

function size(binary: string): Figure {
  const bytes = Bun.file(binary).size;
  return { what: "size, with kernels and model", measured: bytes / 1e6, allowed: 200, unit: "MB" };
}

/** Also the processor's time, which other programs do not lengthen as much. */
async function versionTimes(binary: string, folder: string): Promise<Figure[]> {
  const times: number[] = [];
  const ownTimes: number[] = [];
  for (let i = 0; i < startCount; i++) {
    const startMs = performance.now();
    const child = start([binary, "--version"], folder);
    await ended(child);
    times.push(performance.now() - startMs);
    ownTimes.push(Number(child.resourceUsage()?.cpuTime.total ?? 0) / 1000);
  }
  const allowed = { allowed: 200, unit: "ms" };
  return [
    { what: `--version, median of ${startCount}`, measured: medianMs(times), ...allowed },
    { what: `--version, least of ${startCount}`, measured: Math.min(...times), ...allowed },
    { what: "--version, median of processor time", measured: medianMs(ownTimes), ...allowed },
  ];
}

async function imageDifference(binary: string, folder: string): Promise<Figure> {
  const main = join(import.meta.dir, "../main.ts");
  const flags = ["sample", "--seed", "2", "--device", "cpu", "--quiet"];
  const env = { HOME: join(folder, "home") };
  const path = (name: string) => join(folder, `${name}.png`);
  const commands = { binary: [binary], clone: [process.execPath, main] };
  for (const [name, command] of Object.entries(commands)) {
    const { stderr } = await ended(start([...command, ...flags, "--out", path(name)], folder, env));
    if (stderr !== "") throw new Error(stderr);
  }
  const [ours, theirs] = [readFileSync(path("binary")), readFileSync(path("clone"))];
  const differing = ours.filter((byte, index) => byte !== theirs[index]).length;
  const measured = differing + Math.abs(ours.length - theirs.length);
  return { what: "its image against the clone's", measured, allowed: 0, unit: "bytes differ" };
}

/** Side effects of a run with a cold cache: network calls and files written elsewhere. */
async function effects(binary: string, folder: string): Promise<Figure[]> {
  const network = "calls to a network";
  const elsewhere = "paths written outside cache and image";
  const reason = noStraceReason();
  if (reason !== null) {
    const unit = `not measured: ${reason}`;
    return [network, elsewhere].map((what) => ({ what, measured: null, allowed: 0, unit }));
  }
  rmSync(join(folder, "home"), { recursive: true, force: true });
  const log = join(folder, "strace.log");
  const trace = ["strace", "-f", "-e", `trace=${tracedCalls.join(",")}`, "-o", log];
  const command = [...trace, binary, "sample", "--seed", "2", "--device", "cpu", "--quiet"];
  await ended(start(command, folder, { HOME: join(folder, "home") }));
  const traced = readTrace(readFileSync(log, "utf8"), folder);
  const allowed = [join(folder, "home"), join(folder, "sample.png")];
  return [
    { what: network, measured: traced.network.length, allowed: 0, unit: "calls" },
    {
      what: elsewhere,
      measured: traced.outside(allowed).length,
      allowed: 0,
      unit: `of ${traced.written.length} written`,
    },
  ];
}
