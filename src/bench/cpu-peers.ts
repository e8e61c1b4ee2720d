/**
 * `bun run bench cpu-peers`: a UNet call of full size on the CPU beside the fastest other programs
 * of each type, in turns: onnxruntime (f32; int8 in linear layers), PyTorch eager and compiled. The
 * exit code is 1 when a ratio is below its limit.
 */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import type { ArgsDef } from "citty";
import { BasedXLError } from "../errors.ts";
import { openModelFolder } from "../models/folder.ts";
import { nativeModelOf } from "../models/native-model.ts";
import { ModelParts } from "../native/testing.ts";
import { type CpuDtype, cpuDtypes } from "../settings/names.ts";
import { type HelpText, renderHelp } from "../terminal/help.ts";
import { runPart } from "./cpu-models.ts";
import { median } from "./cpu-ops.ts";
import { namesOf, readFlags, sharedFlags, textOf, wholeOf } from "./flags.ts";
import { fullSizeFlag, fullSizeFolder, writeFullSize } from "./full-size.ts";
import { type Case, Program } from "./programs.ts";
import { machine, renderTable } from "./report.ts";

/** Other programs by our type. Limits are those of the best of each family. */
const peers = {
  f32: [
    { name: "onnxruntime f32", runtime: "onnxruntime", dtype: "f32", family: "onnxruntime" },
    { name: "PyTorch eager f32", runtime: "eager", dtype: "f32", family: "PyTorch" },
    { name: "PyTorch compiled f32", runtime: "compiled", dtype: "f32", family: "PyTorch" },
  ],
  bf16: [
    { name: "PyTorch eager bf16", runtime: "eager", dtype: "bf16", family: "PyTorch" },
    { name: "PyTorch compiled bf16", runtime: "compiled", dtype: "bf16", family: "PyTorch" },
  ],
  int8: [
    { name: "onnxruntime int8", runtime: "onnxruntime", dtype: "int8", family: "onnxruntime" },
  ],
} as const;
type Peer = (typeof peers)[keyof typeof peers][number];

const limits = [
  { dtype: "f32", family: "onnxruntime", least: 1.2 },
  { dtype: "bf16", family: "PyTorch", least: 1.15 },
  { dtype: "int8", family: "onnxruntime", least: 1.4 },
] as const;

const pairsDefault = 5;
const sideDefault = 512;
/** Their threads spin for a while after a call. */
const restMs = 200;

const allPeers: readonly Peer[] = Object.values(peers).flat();
const runtimes = ["onnxruntime", "eager", "compiled"] as const;

const flagTexts = {
  model: fullSizeFlag,
  onnx: {
    type: "string",
    valueHint: "FOLDER",
    description:
      "Folder of the UNet as ONNX; written (10 GB in f32, 4 in int8) where it is missing. " +
      "Default: bench-out/onnx.",
  },
  python: {
    type: "string",
    valueHint: "PATH",
    description: "A Python with torch, diffusers, onnxruntime and onnxscript. Default: python3.",
  },
  dtype: {
    type: "string",
    valueHint: "LIST",
    description: `Of ${cpuDtypes.join(", ")}. Default: all.`,
  },
  runtimes: {
    type: "string",
    valueHint: "LIST",
    description: `Of ${runtimes.join(", ")}. Default: all, but PyTorch in f32 where named only.`,
  },
  winograd: {
    type: "boolean",
    description: "Convolutions in f32 as --quality high has them, not as exact.",
  },
  side: { type: "string", valueHint: "N", description: `Image side. Default: ${sideDefault}.` },
  pairs: { type: "string", valueHint: "N", description: `Runs of each. Default: ${pairsDefault}.` },
  help: sharedFlags.help,
} as const satisfies ArgsDef;

const help: HelpText = {
  usage: "bun run bench cpu-peers [flags]",
  summary:
    "Times a UNet call in turns with other programs, one of them in memory at a time. Other load " +
    "distorts the ratios: chrt -f 20 before the command keeps it out, in all programs alike.",
  examples: [
    "bun run bench cpu-peers --dtype f32,bf16",
    "bun run bench cpu-peers --dtype f32 --runtimes onnxruntime,eager,compiled",
  ],
  groups: [
    ["What is timed", ["dtype", "winograd", "runtimes", "side", "pairs"]],
    ["With what", ["model", "onnx", "python", "help"]],
  ],
  notes: [],
};

export async function run(args: string[]): Promise<number> {
  const flags = readFlags(args, flagTexts);
  if (flags.help) {
    process.stdout.write(renderHelp(help, flagTexts));
    return 0;
  }
  const side = wholeOf(flags, "side", { min: 64, max: 4096 }) ?? sideDefault;
  const setting: Setting = {
    folder: textOf(flags, "model") ?? fullSizeFolder,
    onnx: resolve(textOf(flags, "onnx") ?? "bench-out/onnx"),
    python: textOf(flags, "python") ?? "python3",
    winograd: flags.winograd === true,
    side,
    pairCount: wholeOf(flags, "pairs", { min: 1, max: 99 }) ?? pairsDefault,
  };
  const dtypes = namesOf(flags, "dtype", cpuDtypes) ?? cpuDtypes;
  const named = namesOf(flags, "runtimes", runtimes);
  writeFullSize(setting.folder);
  const rows: Row[] = [];
  for (const dtype of dtypes) {
    const chosen = allPeers.filter((peer) => peers[dtype].some((own) => own === peer));
    for (const peer of chosen.filter((each) => isWanted(each, named))) {
      rows.push(await timePeer(setting, dtype, peer));
      process.stderr.write(`${peer.name}: ${rows.at(-1)!.ratio.toFixed(2)}\n`);
    }
  }
  return report(setting, rows);
}

// --- internal ---

interface Setting {
  folder: string;
  onnx: string;
  python: string;
  winograd: boolean;
  side: number;
  pairCount: number;
}

interface Row {
  dtype: CpuDtype;
  peer: Peer;
  version: string;
  /** Medians, of the whole call and without the prompt's keys and values. */
  milliseconds: number;
  stepMilliseconds: number;
  peerMilliseconds: number;
  /** Medians of its time over ours, pair by pair. */
  ratio: number;
  stepRatio: number;
}

function isWanted(peer: Peer, named: readonly string[] | undefined): boolean {
  if (named) return named.includes(peer.runtime);
  return peer.dtype !== "f32" || peer.family !== "PyTorch";
}

/**
 * Ours in this process and one peer's in another; the first run of each is discarded. A peer's call
 * computes the prompt's keys and values, which an image needs once: ours is timed with and without.
 */
async function timePeer(setting: Setting, dtype: CpuDtype, peer: Peer): Promise<Row> {
  const what = await caseOf(setting, peer);
  const other = await Program.peer(setting.python);
  if (!other) throw new BasedXLError("setup", `${setting.python} has no torch.`);
  const model = await openModelFolder(setting.folder);
  const parts = await ModelParts.open(nativeModelOf(model), {
    dtype,
    winograd: setting.winograd,
  });
  const calls: number[] = [];
  const steps: number[] = [];
  const theirs: number[] = [];
  try {
    for (let i = 0; i <= setting.pairCount; i++) {
      const peerMs = await other.program.time(what);
      await Bun.sleep(restMs);
      const start = performance.now();
      const stepMs = await runPart(parts, "unet", setting.side / model.vaeFactor);
      const callMs = performance.now() - start;
      if (i === 0) continue;
      calls.push(callMs);
      steps.push(stepMs);
      theirs.push(peerMs);
    }
  } finally {
    await parts.close();
    await other.program.close();
  }
  return {
    dtype,
    peer,
    version: (peer.family === "PyTorch" ? other.version : other.onnxruntime) ?? "",
    milliseconds: median(calls),
    stepMilliseconds: median(steps),
    peerMilliseconds: median(theirs),
    ratio: median(theirs.map((time, i) => time / calls[i]!)),
    stepRatio: median(theirs.map((time, i) => time / steps[i]!)),
  };
}

async function caseOf(setting: Setting, peer: Peer): Promise<Case> {
  const { runtime } = peer;
  const latent = setting.side / 8;
  const size = { rows: latent, width: latent };
  if (runtime !== "onnxruntime") {
    return { op: "unet", model: setting.folder, ...size, dtype: peer.dtype, runtime };
  }
  const folder = join(setting.onnx, `${peer.dtype}-${setting.side}`);
  const onnx = join(folder, "unet.onnx");
  if (!existsSync(onnx)) await writeOnnx(setting, folder, peer.dtype === "int8");
  return { op: "unet", onnx, ...size, runtime };
}

async function writeOnnx(setting: Setting, folder: string, int8: boolean): Promise<void> {
  const script = join(import.meta.dir, "../../tests/reference/make_onnx.py");
  const flags = [setting.folder, folder, "--side", String(setting.side), int8 ? ["--int8"] : []];
  process.stderr.write(`Writing ${folder}.\n`);
  const child = Bun.spawn([setting.python, script, ...flags.flat()], { stderr: "pipe" });
  const errors = await new Response(child.stderr).text();
  if ((await child.exited) === 0) return;
  const last = errors.trim().split("\n").at(-1);
  throw new BasedXLError("setup", `The UNet could not be written as ONNX: ${last}`);
}

/** Prints the table; returns the exit code. */
function report({ side, pairCount }: Setting, rows: readonly Row[]): number {
  const { cpuName, instructionSet, coreCount } = machine();
  process.stdout.write(
    `UNet call, ${side}x${side}, batch 1, medians of ${pairCount} pairs, ${coreCount} cores ` +
      `(${cpuName}, ${instructionSet})\n\n`,
  );
  const heads = [
    "ours",
    "ms",
    "in a loop",
    "peer",
    "version",
    "peer ms",
    "peer / ours",
    "in a loop",
  ];
  const cells = rows.map((row) => [
    row.dtype,
    row.milliseconds.toFixed(0),
    row.stepMilliseconds.toFixed(0),
    row.peer.name,
    row.version,
    row.peerMilliseconds.toFixed(0),
    row.ratio.toFixed(2),
    row.stepRatio.toFixed(2),
  ]);
  process.stdout.write(`${renderTable(heads, cells)}\n`);
  let isWithin = true;
  for (const { dtype, family, least } of limits) {
    const own = rows.filter((row) => row.dtype === dtype && row.peer.family === family);
    if (own.length === 0) continue;
    const ratio = Math.min(...own.map((row) => row.ratio));
    isWithin &&= ratio >= least;
    process.stdout.write(`${dtype}, best of ${family}: ${ratio.toFixed(2)} (bar ${least})\n`);
  }
  const own = (dtype: CpuDtype) => rows.find((row) => row.dtype === dtype)?.milliseconds;
  const [bf16, int8] = [own("bf16"), own("int8")];
  if (bf16 !== undefined && int8 !== undefined) {
    process.stdout.write(`own bf16 / own int8: ${(bf16 / int8).toFixed(2)}\n`);
  }
  return isWithin ? 0 : 1;
}
