/**
 * `bun run bench cpu-busy`: time of a UNet call, or of an image by several ranks, beside programs
 * that keep the cores busy, over the time without them, in turns. The exit code is 1 when a ratio
 * exceeds its limit.
 */
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import type { ArgsDef } from "citty";
import { openModelFolder } from "../models/folder.ts";
import { nativeModelOf } from "../models/native-model.ts";
import { ModelParts } from "../native/testing.ts";
import { makeSchedule } from "../schedule.ts";
import { type CpuDtype, cpuDtypes } from "../settings/names.ts";
import { type HelpText, renderHelp } from "../terminal/help.ts";
import { runPart } from "./cpu-models.ts";
import { median } from "./cpu-ops.ts";
import { nameOf, readFlags, sharedFlags, textOf, wholeOf } from "./flags.ts";
import { fullSizeFlag, fullSizeFolder, writeFullSize } from "./full-size.ts";
import { type Generation, generateImage, openRanks } from "./generation.ts";
import { renderTable } from "./report.ts";

/** Programs beside the timed one; the ratio that its time may have to the time without them. */
const neighbours = [
  { name: "nice 19, one on each core", niceness: 19, everywhere: true, allowed: 1.15 },
  { name: "nice 0, one core", niceness: 0, everywhere: false, allowed: 1.6 },
] as const;
type Neighbour = (typeof neighbours)[number];

const pairsDefault = 5;
const sideDefault = 512;
/** Time for the neighbours to start. */
const settleMs = 200;

const flagTexts = {
  model: fullSizeFlag,
  dtype: { type: "string", valueHint: "TYPE", description: "f32 (default) or bf16." },
  side: { type: "string", valueHint: "N", description: `Image side. Default: ${sideDefault}.` },
  pairs: { type: "string", valueHint: "N", description: `Runs of each. Default: ${pairsDefault}.` },
  ranks: {
    type: "string",
    valueHint: "N",
    description: "Time an image of two steps by N ranks instead of a UNet call, in f32.",
  },
  help: sharedFlags.help,
} as const satisfies ArgsDef;

const help: HelpText = {
  usage: "bun run bench cpu-busy [flags]",
  summary:
    "Times a UNet call beside a program of nice 19 on every core, and beside one of nice 0 on " +
    "one core, against the time without them. The programs are bound to their cores; nice and " +
    "taskset start them.",
  examples: ["bun run bench cpu-busy", "bun run bench cpu-busy --ranks 4 --side 256"],
  groups: [["What is timed", ["model", "dtype", "side", "pairs", "ranks", "help"]]],
  notes: [],
};

export async function run(args: string[]): Promise<number> {
  const flags = readFlags(args, flagTexts);
  if (flags.help) {
    process.stdout.write(renderHelp(help, flagTexts));
    return 0;
  }
  const folder = textOf(flags, "model") ?? fullSizeFolder;
  const dtype = nameOf(flags, "dtype", cpuDtypes) ?? "f32";
  const side = wholeOf(flags, "side", { min: 64, max: 4096 }) ?? sideDefault;
  const pairCount = wholeOf(flags, "pairs", { min: 1, max: 99 }) ?? pairsDefault;
  const rankCount = wholeOf(flags, "ranks", { min: 2, max: 16 });
  writeFullSize(folder);
  const timed =
    rankCount === undefined
      ? await unetCall(folder, dtype, side)
      : await imageOfRanks(folder, rankCount, side);
  try {
    return report(timed.name, await timeAll(timed.time, pairCount));
  } finally {
    await timed.close();
  }
}

// --- internal ---

interface Timed {
  name: string;
  /** Milliseconds of one run. */
  time(): Promise<number>;
  close(): Promise<void>;
}

interface Round {
  quiet: number;
  /** In the order of `neighbours`. */
  busy: number[];
}

async function unetCall(folder: string, dtype: CpuDtype, side: number): Promise<Timed> {
  const model = await openModelFolder(folder);
  const parts = await ModelParts.open(nativeModelOf(model), { dtype });
  return {
    name: `UNet call, ${side}x${side}, ${dtype}`,
    time: () => runPart(parts, "unet", side / model.vaeFactor),
    close: () => parts.close(),
  };
}

async function imageOfRanks(folder: string, rankCount: number, side: number): Promise<Timed> {
  const model = await openModelFolder(folder);
  const stepCount = 2;
  const generation: Generation = {
    model,
    width: side,
    height: side,
    guidanceScale: 1,
    schedule: makeSchedule("euler", model.scheduler, { stepCount }),
    stepCount,
  };
  const ranks = { rankCount, splitBatch: false, threadCount: 0 };
  const session = await openRanks(generation, ranks);
  const how = { syncMode: "corrected_async_gn", warmupSteps: 1, splitBatch: false } as const;
  return {
    name: `image of ${stepCount} steps by ${rankCount} ranks, ${side}x${side}, f32`,
    async time() {
      const image = { prompt: "a red circle", seed: 1n };
      const { timings } = await generateImage(session, generation, image, how);
      return timings.textMs + timings.denoiseMs + timings.decodeMs;
    },
    async close() {
      session.close();
    },
  };
}

/** The first run is discarded. */
async function timeAll(time: () => Promise<number>, pairCount: number): Promise<Round[]> {
  await time();
  const rounds: Round[] = [];
  for (let i = 0; i < pairCount; i++) {
    const round: Round = { quiet: await time(), busy: [] };
    for (const neighbour of neighbours) {
      const children = start(neighbour);
      try {
        await Bun.sleep(settleMs);
        round.busy.push(await time());
      } finally {
        for (const child of children) child.kill("SIGKILL");
        await Promise.all(children.map((child) => child.exited));
      }
    }
    rounds.push(round);
  }
  return rounds;
}

function start({ niceness, everywhere }: Neighbour): Bun.Subprocess[] {
  const cores = allowedCores();
  return (everywhere ? cores : cores.slice(0, 1)).map((core) => {
    const loop = ["sh", "-c", "while :; do :; done"];
    const command = ["nice", "-n", String(niceness), "taskset", "-c", String(core), ...loop];
    return Bun.spawn(command, { stdin: "ignore", stdout: "ignore", stderr: "inherit" });
  });
}

/** The cores on which this process may run. */
function allowedCores(): number[] {
  const status = readFileSync("/proc/self/status", "utf8");
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1];
  if (list === undefined) return Array.from({ length: availableParallelism() }, (_, core) => core);
  return list.split(",").flatMap((range) => {
    const [first = 0, last = first] = range.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

/** Prints the table; returns the exit code. */
function report(name: string, rounds: readonly Round[]): number {
  const quiet = median(rounds.map((round) => round.quiet));
  const rows = neighbours.map((neighbour, i) => ({
    neighbour,
    milliseconds: median(rounds.map(({ busy }) => busy[i]!)),
    ratios: rounds.map((round) => round.busy[i]! / round.quiet),
  }));
  const cells = rows.map(({ neighbour, milliseconds, ratios }) => [
    neighbour.name,
    quiet.toFixed(0),
    milliseconds.toFixed(0),
    median(ratios).toFixed(3),
    `${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)}`,
    String(neighbour.allowed),
  ]);
  const heads = ["beside", "alone, ms", "ms", "ratio", "of pairs", "bar"];
  process.stdout.write(`${name}\n\n${renderTable(heads, cells)}`);
  const isWithin = rows.every((row) => median(row.ratios) <= row.neighbour.allowed);
  return isWithin ? 0 : 1;
}
