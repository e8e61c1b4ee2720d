/**
 * `bun run bench cpu`: speed of the CPU backend against the peak of cores and memory, and against
 * PyTorch eager on the same machine, in turns within one run.
 */
import { availableParallelism, loadavg } from "node:os";
import type { ArgsDef } from "citty";
import type { TopLevelSpec } from "vega-lite";
import { badOption } from "../errors.ts";
import { writeWhole } from "../image/files.ts";
import { probeDevice } from "../native/device-info.ts";
import type { CpuDtype } from "../settings/names.ts";
import { type HelpText, renderHelp } from "../terminal/help.ts";
import {
  fitSizes,
  type ModelJob,
  type ModelOp,
  type ModelRow,
  modelOps,
  timeModels,
} from "./cpu-models.ts";
import { type OperationRow, type Peaks, peaksOf, timeOperations } from "./cpu-ops.ts";
import { type RankRow, timeRanks } from "./cpu-ranks.ts";
import { type Sdcpp, type SdcppRow, timeSdcpp } from "./cpu-sdcpp.ts";
import { namesOf, readFlags, sharedFlags, textOf, wholeOf, wholesOf } from "./flags.ts";
import { writeFullSize } from "./full-size.ts";
import { Program } from "./programs.ts";
import { machine, renderTable, writeReport } from "./report.ts";

/** What PyTorch computes in as well; `bench int8` times int8. */
const dtypes = ["f32", "bf16"] as const satisfies readonly CpuDtype[];
const parts = ["ops", "models", "ranks", "sizes", "sdcpp"] as const;
const sidesDefault = [256, 512, 1024];
const pairsDefault = 5;
/** Image sizes whose UNet call is timed for the fit. */
const fitSides = [256, 384, 512, 768, 1024, 1536, 2048];

const flagTexts = {
  only: {
    type: "string",
    valueHint: "LIST",
    description: `Of ${parts.join(", ")}. Default: ops, and with --model models too.`,
  },
  parts: {
    type: "string",
    valueHint: "LIST",
    description: `Of the models: ${modelOps.join(", ")}. Default: all.`,
  },
  dtypes: { type: "string", valueHint: "LIST", description: "Default: f32, and bf16 where it is." },
  pairs: {
    type: "string",
    valueHint: "N",
    description: `Runs of each, alternating with PyTorch's. Default: ${pairsDefault}.`,
  },
  sides: {
    type: "string",
    valueHint: "LIST",
    description: `Image sides in pixels, for the models. Default: ${sidesDefault}.`,
  },
  model: {
    type: "string",
    valueHint: "FOLDER",
    description:
      "Folder of a model of SDXL's full size; written with random weights (6.6 GB) if it does " +
      "not exist.",
  },
  python: {
    type: "string",
    valueHint: "PATH",
    description: "A Python with torch and diffusers. Default: python3.",
  },
  "sd-cli": {
    type: "string",
    valueHint: "PATH",
    description: "Path of stable-diffusion.cpp's sd-cli, for --only sdcpp.",
  },
  "sd-type": {
    type: "string",
    valueHint: "TYPE",
    description: "Its weights: f16 as in the files (default), or q8_0 and others that it knows.",
  },
  json: { type: "string", valueHint: "FILE", description: "Also write the JSON to FILE." },
  out: sharedFlags.out,
  help: sharedFlags.help,
} as const satisfies ArgsDef;

const help: HelpText = {
  usage: "bun run bench cpu [flags]",
  summary:
    "Times the CPU's operations and, with --model, UNet, VAE and text encoders of SDXL's full " +
    "size, against the machine's peak and PyTorch eager (src/bench/NOTES-cpu.md).",
  examples: [
    "bun run bench cpu",
    "bun run bench cpu --model full-size --only models --sides 512",
    "bun run bench cpu --model full-size --only ranks,sizes --sides 512",
    "bun run bench cpu --model full-size --only sdcpp --sides 512 --sd-cli build/bin/sd-cli",
  ],
  groups: [
    ["What is timed", ["only", "parts", "dtypes", "pairs", "sides"]],
    ["With what", ["model", "python", "sd-cli", "sd-type"]],
    ["Output", ["json", "out", "help"]],
  ],
  notes: [],
};

interface Results {
  peaks: Partial<Record<CpuDtype, Peaks>>;
  operations: OperationRow[];
  models: ModelRow[];
  ranks: RankRow[];
  sizes: ModelRow[];
  sdcpp: SdcppRow[];
  /** Milliseconds of a UNet call: a + b n + c n^2, n in megapixels. */
  fit: number[] | null;
}

export async function run(args: string[]): Promise<number> {
  const flags = readFlags(args, flagTexts);
  if (flags.help) {
    process.stdout.write(renderHelp(help, flagTexts));
    return 0;
  }
  const folder = textOf(flags, "model");
  const only =
    namesOf(flags, "only", parts) ?? (folder === undefined ? ["ops"] : ["ops", "models"]);
  if (folder === undefined && only.some((part) => part !== "ops")) {
    throw badOption(
      "--only models, ranks, sizes and sdcpp need --model FOLDER, for 6.6 GB of random weights.",
    );
  }
  const sdCli = only.includes("sdcpp") ? programOf(textOf(flags, "sd-cli")) : null;
  const info = probeDevice();
  const wanted = namesOf(flags, "dtypes", dtypes) ?? (info.hasBf16 ? dtypes : ["f32"]);
  if (wanted.includes("bf16") && !info.hasBf16) {
    throw badOption(`--dtypes bf16 needs a CPU with AVX512_BF16, which ${info.cpuName} is not.`);
  }
  const pairs = wholeOf(flags, "pairs", { min: 1, max: 99 }) ?? pairsDefault;
  const sides = wholesOf(flags, "sides", { min: 64, max: 4096 }) ?? sidesDefault;
  const ops = namesOf(flags, "parts", modelOps) ?? modelOps;
  const results: Results = {
    peaks: {},
    operations: [],
    models: [],
    ranks: [],
    sizes: [],
    sdcpp: [],
    fit: null,
  };
  const loadBefore = loadavg()[0] ?? 0;
  if (folder !== undefined) writeFullSize(folder);
  let torch: string | null = null;
  const ofPeers = only.includes("ops") || only.includes("models") ? wanted : [];
  for (const dtype of ofPeers) {
    // One peer process per type: models of both would not fit in memory together.
    const peer = await Program.peer(textOf(flags, "python") ?? "python3");
    torch = peer?.version ?? null;
    if (!peer) process.stdout.write("This Python has no torch: PyTorch's columns are left out.\n");
    const program = peer?.program ?? null;
    if (only.includes("ops")) await runOperations(results, program, dtype, pairs);
    if (folder !== undefined && only.includes("models")) {
      await runModels(results, folder, ops, sides, program, dtype, pairs);
    }
    await program?.close();
  }
  process.stdout.write(gainOfBf16(results.models));
  if (folder !== undefined && only.includes("ranks")) {
    await runRanks(results, folder, sides[0]!, pairs);
  }
  if (folder !== undefined && only.includes("sizes")) await runSizes(results, folder, wanted[0]!);
  if (folder !== undefined && sdCli !== null) {
    const sdcpp = { path: sdCli, type: textOf(flags, "sd-type") ?? null };
    await runSdcpp(results, sdcpp, folder, sides[0]!, wanted, pairs);
  }
  if (loadBefore > availableParallelism() / 4) {
    process.stdout.write(`Times are unreliable: the load was ${loadBefore.toFixed(1)} before.\n`);
  }
  const data = { machine: machine(), torch, loadBefore, pairs, ...results };
  const json = textOf(flags, "json");
  if (json) await writeWhole(json, Buffer.from(`${JSON.stringify(data, null, 2)}\n`));
  await writeReport(textOf(flags, "out") ?? "bench-out", "cpu", data, chart(results));
  return 0;
}

// --- internal ---

/** Path of stable-diffusion.cpp's sd-cli. */
function programOf(path: string | undefined): string {
  if (path === undefined) {
    throw badOption("--only sdcpp needs --sd-cli PATH, the program of stable-diffusion.cpp.");
  }
  if (Bun.which(path) === null) throw badOption(`--sd-cli ${path} is not an executable program.`);
  return path;
}

async function runOperations(
  results: Results,
  peer: Program | null,
  dtype: CpuDtype,
  pairs: number,
): Promise<void> {
  const native = await Program.native("cpu-bench");
  const peaks = await peaksOf(native, dtype);
  results.peaks[dtype] = peaks;
  const { gflops, gigabytes } = peaks;
  process.stdout.write(
    `\n${dtype}: multiply-adds ${gflops.toFixed(0)} GFLOP/s, copy ${gigabytes.toFixed(1)} GB/s\n\n`,
  );
  const rows: OperationRow[] = [];
  for await (const row of timeOperations(native, peer, dtype, pairs)) rows.push(row);
  results.operations.push(...rows);
  const cells = rows.map((row) => [
    row.name,
    row.milliseconds.toFixed(2),
    row.gflops === null ? `${row.gigabytes!.toFixed(1)} GB/s` : `${row.gflops.toFixed(0)} GF/s`,
    `${(100 * row.share).toFixed(0)} %`,
    row.peerMilliseconds?.toFixed(2) ?? "-",
    row.ratio?.toFixed(2) ?? "-",
  ]);
  const heads = ["operation", "ms", "rate", "of peak", "PyTorch ms", "PyTorch / ours"];
  process.stdout.write(renderTable(heads, cells));
  await native.close();
}

async function runModels(
  results: Results,
  folder: string,
  ops: readonly ModelOp[],
  sides: number[],
  peer: Program | null,
  dtype: CpuDtype,
  pairs: number,
): Promise<void> {
  const jobs: ModelJob[] = ops.flatMap((op) =>
    // A prompt has no size.
    (op === "text" ? sides.slice(0, 1) : sides).map((side) => ({ op, side })),
  );
  const rows: ModelRow[] = [];
  for await (const row of timeModels(folder, jobs, peer, dtype, pairs)) rows.push(row);
  results.models.push(...rows);
  process.stdout.write(`\n${dtype}, full size, random weights\n\n${modelTable(rows)}`);
}

/** Speed-up of bf16 over f32 in the same run; "" where one of the two was not timed. */
function gainOfBf16(rows: readonly ModelRow[]): string {
  const gains = rows.flatMap(({ op, side, dtype, milliseconds }) => {
    const other = rows.find((row) => row.op === op && row.side === side && row.dtype === "bf16");
    if (dtype !== "f32" || !other) return [];
    return `${op} ${side}: ${(milliseconds / other.milliseconds).toFixed(2)}`;
  });
  return gains.length === 0 ? "" : `\nf32 / bf16: ${gains.join(", ")}\n`;
}

async function runRanks(
  results: Results,
  folder: string,
  side: number,
  pairs: number,
): Promise<void> {
  for await (const row of timeRanks(folder, side, pairs)) {
    process.stderr.write(`${row.rankCount} ranks: ${row.ratio.toFixed(3)} times one rank's time\n`);
    results.ranks.push(row);
  }
  const heads = ["ranks", "ms", "one rank, ms", "ratio"];
  const cells = results.ranks.map(({ rankCount, milliseconds, oneRankMilliseconds, ratio }) => [
    String(rankCount),
    milliseconds.toFixed(0),
    oneRankMilliseconds.toFixed(0),
    ratio.toFixed(3),
  ]);
  const title = `f32, one image of two steps at ${side}x${side} with guidance`;
  process.stdout.write(`\n${title}\n\n${renderTable(heads, cells)}`);
}

async function runSizes(results: Results, folder: string, dtype: CpuDtype): Promise<void> {
  const jobs = fitSides.map((side) => ({ op: "unet" as const, side }));
  for await (const row of timeModels(folder, jobs, null, dtype, 1)) results.sizes.push(row);
  results.fit = fitSizes(results.sizes);
  const [a = 0, b = 0, c = 0] = results.fit;
  process.stdout.write(
    `\n${dtype}, one UNet call by size\n\n${modelTable(results.sizes)}\nms = ${a.toFixed(0)} + ` +
      `${b.toFixed(0)} n + ${c.toFixed(0)} n^2, n in megapixels\n`,
  );
}

async function runSdcpp(
  results: Results,
  sdcpp: Sdcpp,
  folder: string,
  side: number,
  wanted: readonly CpuDtype[],
  pairs: number,
): Promise<void> {
  results.sdcpp = await timeSdcpp(sdcpp, folder, side, wanted, pairs);
  const heads = ["model", "type", "ms", "sd.cpp ms", "sd.cpp / ours"];
  const cells = results.sdcpp.map((row) => [
    modelName(row.op),
    row.dtype,
    row.milliseconds.toFixed(0),
    row.sdcppMilliseconds.toFixed(0),
    row.ratio.toFixed(2),
  ]);
  const title = `stable-diffusion.cpp, weights in ${sdcpp.type ?? "f16"}, ${side}x${side}`;
  process.stdout.write(`\n${title}\n\n${renderTable(heads, cells)}`);
}

function modelName(op: ModelOp): string {
  return op === "text" ? "text encoders" : op === "unet" ? "UNet call" : "VAE decode";
}

function modelTable(rows: readonly ModelRow[]): string {
  const heads = ["model", "side", "ms", "PyTorch ms", "PyTorch / ours", "RssAnon GB"];
  const cells = rows.map((row) => [
    modelName(row.op),
    row.op === "text" ? "" : String(row.side),
    row.milliseconds.toFixed(0),
    row.peerMilliseconds?.toFixed(0) ?? "-",
    row.ratio?.toFixed(2) ?? "-",
    row.residentAnonymous?.toFixed(2) ?? "-",
  ]);
  return renderTable(heads, cells);
}

/** Charts: shares of the peak; where sizes were timed, time against size with the fit. */
function chart(results: Results): TopLevelSpec {
  const shares = {
    title: "Share of the peak",
    data: { values: results.operations.map(({ name, dtype, share }) => ({ name, dtype, share })) },
    mark: "bar",
    encoding: {
      y: { field: "name", type: "nominal", sort: null, title: null, axis: { labelLimit: 300 } },
      yOffset: { field: "dtype", sort: null },
      x: { field: "share", type: "quantitative", axis: { format: "%" }, title: null },
      color: { field: "dtype", type: "nominal", sort: null, title: null },
    },
  } as const;
  if (results.fit === null) return shares;
  const [a = 0, b = 0, c = 0] = results.fit;
  const points = [...results.sizes, ...results.models.filter(({ op }) => op === "unet")];
  const values = points.map(({ side, milliseconds }) => {
    const megapixels = side ** 2 / 1e6;
    const fitted = a + b * megapixels + c * megapixels ** 2;
    return { megapixels, seconds: milliseconds / 1e3, fitted: fitted / 1e3 };
  });
  const x = { field: "megapixels", type: "quantitative" as const };
  const y = (field: string) => ({ field, type: "quantitative" as const, title: "seconds" });
  const sizes = {
    title: "Seconds of a UNet call by size, with the fit",
    data: { values },
    layer: [
      { mark: "point" as const, encoding: { x, y: y("seconds") } },
      { mark: "line" as const, encoding: { x, y: y("fitted") } },
    ],
  };
  return results.operations.length === 0 ? sizes : { vconcat: [shares, sizes] };
}
