/**
 * `bun run bench gpu`: all measurements on a GPU, in one command within ten minutes: operations
 * against the measured ceilings and PyTorch, models and images of SDXL's full size with random
 * weights, patches alone for `bench scaling`, and the limits. Every part is saved as it ends; a
 * failed part is reported and the others continue. `--predict` needs no GPU.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { ArgsDef } from "citty";
import type { TopLevelSpec } from "vega-lite";
import { BasedXLError, badOption } from "../errors.ts";
import { writeWhole } from "../image/files.ts";
import type { Model } from "../models/model.ts";
import { probeDevice } from "../native/device-info.ts";
import { emulatorPath, prepareDevice } from "../native/library.ts";
import { settings } from "../settings/table.ts";
import { type HelpText, renderHelp } from "../terminal/help.ts";
import { nameOf, namesOf, readFlags, sharedFlags, textOf, wholeOf, wholesOf } from "./flags.ts";
import { barsOf, barTable } from "./gpu-bars.ts";
import {
  type ModelRow,
  modelTable,
  type PeerRow,
  peerTable,
  timeModels,
  timePeerModels,
  variantsOf,
  warmupsDefault,
} from "./gpu-models.ts";
import {
  jobsOf,
  measureCeilings,
  type OperationRow,
  operationTable,
  summedSteps,
  timeOperations,
} from "./gpu-ops.ts";
import { type PatchFile, type PatchRow, timePatches } from "./gpu-patches.ts";
import { launchMs, runPrediction } from "./gpu-predict.ts";
import { type About, GpuBench, GpuPeer, type PeerAbout } from "./gpu-programs.ts";
import { type Ceilings, type GpuDtype, gpuDtypes, withModel } from "./gpu-work.ts";
import { machine, renderTable, writeReport } from "./report.ts";
import { patchTable, patchTitle, predictPatches } from "./scaling-patches.ts";

const parts = ["ops", "models", "patches", "peer"] as const;
const devices = ["cuda", "cuda-emulated"] as const;
const sidesDefault = [1024, 2048];
const patchesDefault = [1, 2, 4, 8];
const stepsDefault = 30;
const pairsDefault = 5;
const compileModes = ["reduce-overhead", "default", "max-autotune", "off"] as const;

const flagTexts = {
  predict: {
    type: "boolean",
    description:
      "Run nothing: predict UNet step, VAE, text encoders and memory from the real graph, at " +
      "the ceilings of several GPUs and as expected of an H200.",
  },
  only: { type: "string", valueHint: "LIST", description: `Of ${parts.join(", ")}. Default: all.` },
  device: {
    type: "string",
    valueHint: "NAME",
    description: `${devices.join(" or ")}; emulated times are meaningless. Default: cuda.`,
  },
  quick: {
    type: "boolean",
    description: "Small sizes, once each, to test that it runs. Always on for cuda-emulated.",
  },
  model: {
    type: "string",
    valueHint: "FOLDER",
    description: "Model whose shapes are used, with random weights. Default: SDXL's, no files.",
  },
  sides: {
    type: "string",
    valueHint: "LIST",
    description: `Image sides in pixels. Default: ${sidesDefault}.`,
  },
  patches: {
    type: "string",
    valueHint: "LIST",
    description: `Patches per image. Default: ${patchesDefault}.`,
  },
  dtypes: { type: "string", valueHint: "LIST", description: `Default: ${gpuDtypes}.` },
  steps: {
    type: "string",
    valueHint: "N",
    description: `Steps per image. Default: ${stepsDefault}.`,
  },
  pairs: {
    type: "string",
    valueHint: "N",
    description: `Samples per operation, alternating with PyTorch's. Default: ${pairsDefault}.`,
  },
  python: {
    type: "string",
    valueHint: "PATH",
    description: "A Python with torch, and diffusers for models. Default: python3.",
  },
  compile: {
    type: "string",
    valueHint: "MODE",
    description: `Mode of torch.compile: ${compileModes.join(", ")}. Default: ${compileModes[0]}.`,
  },
  out: sharedFlags.out,
  help: sharedFlags.help,
} as const satisfies ArgsDef;

const help: HelpText = {
  usage: "bun run bench gpu [flags]",
  summary:
    "Times operations, models and images of SDXL's full size on a GPU against its ceilings, " +
    "PyTorch and the bars, within ten minutes (src/bench/README.md).",
  examples: [
    "bun run bench gpu",
    "bun run bench gpu --predict",
    "bun run bench gpu --only patches && " +
      "bun run bench scaling --patches bench-out/gpu-patches.json",
    "bun run bench gpu --device cuda-emulated --model tests/fixtures/golden/model",
  ],
  groups: [
    ["What is timed", ["predict", "only", "sides", "patches", "dtypes", "steps", "pairs"]],
    ["On what", ["device", "quick", "model", "python", "compile"]],
    ["Output", ["out", "help"]],
  ],
  notes: [],
};

interface Plan {
  model: Model;
  only: readonly (typeof parts)[number][];
  sides: readonly number[];
  patches: readonly number[];
  dtypes: readonly GpuDtype[];
  steps: number;
  pairs: number;
  python: string;
  compile: readonly string[];
  /** Path of the emulator library, "" for NVIDIA's own. */
  emulator: string;
  quick: boolean;
  out: string;
}

interface Results {
  gpu: About | null;
  torch: PeerAbout | null;
  ceilings: Partial<Record<GpuDtype, Ceilings>>;
  operations: OperationRow[];
  models: ModelRow[];
  peers: PeerRow[];
  patches: PatchRow[];
  /** Error messages of parts that failed. */
  failures: string[];
}

export async function run(args: string[]): Promise<number> {
  const flags = readFlags(args, flagTexts);
  if (flags.help) {
    process.stdout.write(renderHelp(help, flagTexts));
    return 0;
  }
  const device = nameOf(flags, "device", devices) ?? "cuda";
  const quick = flags.quick === true || device === "cuda-emulated";
  const dtypes = namesOf(flags, "dtypes", gpuDtypes) ?? (quick ? ["f16"] : gpuDtypes);
  const only = namesOf(flags, "only", parts) ?? parts;
  const sides = wholesOf(flags, "sides", { min: 64, max: settings.width.max });
  const patches =
    wholesOf(flags, "patches", settings.rankCount) ?? (quick ? [1, 2] : patchesDefault);
  const compile = nameOf(flags, "compile", compileModes) ?? (quick ? "off" : compileModes[0]);
  const steps = wholeOf(flags, "steps", settings.stepCount);
  const pairs = wholeOf(flags, "pairs", { min: 1, max: 99 });
  const out = textOf(flags, "out") ?? "bench-out";
  const python = textOf(flags, "python") ?? "python3";
  if (flags.predict !== true) refuseWithoutGpu(device);
  return await withModel(textOf(flags, "model"), async (model) => {
    const unit = model.sizeMultiple;
    const wrong = sides?.find((side) => side % unit !== 0);
    if (wrong !== undefined) throw badOption(`--sides takes multiples of ${unit}, not ${wrong}.`);
    const known = sides ?? (quick ? [2 * unit] : sidesDefault);
    if (flags.predict === true) {
      return await runPrediction({ model, dtype: dtypes[0]!, sides: known, patches, out });
    }
    return await measure({
      model,
      only,
      sides: known,
      patches,
      dtypes,
      steps: steps ?? (quick ? 4 : stepsDefault),
      pairs: pairs ?? (quick ? 1 : pairsDefault),
      python,
      compile: compile === "off" ? [""] : ["", compile],
      emulator: await emulatorFor(device),
      quick,
      out,
    });
  });
}

// --- internal ---

/** Throws "no-device" with one sentence where a requirement is missing. */
function refuseWithoutGpu(device: (typeof devices)[number]): void {
  if (device === "cuda-emulated") return;
  const { gpuCount, cudaKernels } = probeDevice();
  const instead =
    "--predict estimates the times, --device cuda-emulated tests on the CPU that it runs.";
  if (gpuCount === 0) {
    const sentence = "bench gpu needs an NVIDIA GPU and its driver, and none was found";
    throw new BasedXLError("no-device", `${sentence}: ${instead}`);
  }
  if (cudaKernels === "") {
    const sentence = "This build has no CUDA kernels, since nvcc was not found";
    throw new BasedXLError("no-device", `${sentence}: install the CUDA toolkit, or ${instead}`);
  }
}

async function emulatorFor(device: (typeof devices)[number]): Promise<string> {
  if (device === "cuda") return "";
  await prepareDevice(device, (line) => void process.stderr.write(`${line}\n`));
  return emulatorPath();
}

async function measure(plan: Plan): Promise<number> {
  const results: Results = {
    gpu: null,
    torch: null,
    ceilings: {},
    operations: [],
    models: [],
    peers: [],
    patches: [],
    failures: [],
  };
  const startMs = performance.now();
  const isEmulated = plan.emulator !== "";
  if (isEmulated) {
    process.stdout.write("EMULATED ON THE CPU: all times below are meaningless.\n");
  }
  mkdirSync(plan.out, { recursive: true });
  const isAsked = plan.only.includes("peer") || plan.only.includes("ops");
  const peer = isAsked ? await openPeer(plan, isEmulated) : null;
  results.torch = peer?.about ?? null;
  const work = { ops: runOps, models: runModels, patches: runPatches, peer: runPeer };
  for (const part of parts) {
    if (!plan.only.includes(part)) continue;
    try {
      await work[part](plan, results, peer);
    } catch (error) {
      // Continue with the other parts after a failure.
      if (!(error instanceof BasedXLError)) throw error;
      results.failures.push(`${part}: ${error.message}`);
      process.stdout.write(`\n${part} failed: ${error.message}\n`);
    }
    const seconds = ((performance.now() - startMs) / 1e3).toFixed(0);
    process.stderr.write(`${part} ended after ${seconds} s\n`);
    await save(plan, "gpu-parts.json", { ...dataOf(plan), ...results });
  }
  await peer?.close();
  const bars = barsOf(results, isEmulated);
  process.stdout.write(`\n${barTable(bars)}\n`);
  const data = { ...dataOf(plan), ...results, bars };
  await writeReport(plan.out, "gpu", data, chart(results));
  return results.failures.length === 0 ? 0 : 1;
}

function dataOf({ model, sides, patches, dtypes, steps, pairs, emulator, quick }: Plan) {
  const settings = { sides, patches, dtypes, steps, pairs, quick };
  return { machine: machine(), model: model.name, isEmulated: emulator !== "", ...settings };
}

async function save({ out }: Plan, name: string, data: unknown): Promise<void> {
  await writeWhole(join(out, name), Buffer.from(`${JSON.stringify(data, null, 2)}\n`));
}

/** Opens the PyTorch peer; without torch, prints that its columns are left out. */
async function openPeer({ python }: Plan, isEmulated: boolean): Promise<GpuPeer | null> {
  const peer = await GpuPeer.open(python, isEmulated ? "cpu" : "cuda");
  if (!peer) {
    process.stdout.write(`${python} has no torch for this device: PyTorch is left out.\n`);
  } else if (peer.about.diffusers === null) {
    process.stdout.write(`${python} has no diffusers: PyTorch's models are left out.\n`);
  }
  return peer;
}

async function runOps(plan: Plan, results: Results, peer: GpuPeer | null): Promise<void> {
  const { model, sides, patches, dtypes, emulator, quick, pairs } = plan;
  for (const [i, dtype] of dtypes.entries()) {
    const bench = await GpuBench.open(dtype, emulator);
    try {
      results.gpu = bench.about;
      const ceilings = await measureCeilings(bench, quick);
      results.ceilings[dtype] = ceilings;
      const { flopsPerSecond, bytesPerSecond } = ceilings;
      process.stdout.write(
        `\n${bench.about.gpu}, ${dtype}: large GEMM ${(flopsPerSecond / 1e12).toFixed(1)} \
TFLOP/s, a large copy ${(bytesPerSecond / 1e9).toFixed(0)} GB/s\n`,
      );
      // Both types run the same kernels: operations are timed with the first type only.
      if (i > 0) continue;
      const jobs = jobsOf(model, sides[0]!, patches, dtype);
      for await (const row of timeOperations(bench, peer, jobs, ceilings, dtype, pairs)) {
        results.operations.push(row);
      }
    } finally {
      await bench.close();
    }
  }
  const cells = summedSteps(results.operations).map(({ patches: count, ms }) => [
    String(count),
    ms.toFixed(2),
  ]);
  process.stdout.write(
    `\n${sides[0]}x${sides[0]}, ${dtypes[0]}, each alone in a CUDA graph, operands uncached:\n` +
      `\n${operationTable(results.operations)}\nA UNet step, operation by operation:\n\n` +
      `${renderTable(["patches", "ms"], cells)}`,
  );
}

async function runModels(plan: Plan, results: Results): Promise<void> {
  const { model, sides, dtypes, steps, quick } = plan;
  const warmups = quick ? 0 : warmupsDefault;
  const library = plan.emulator === "" ? null : plan.emulator;
  const variants = variantsOf({ library, randomWeights: true }, dtypes);
  for await (const row of timeModels(model, variants, sides, steps, warmups)) {
    results.models.push(row);
  }
  process.stdout.write(`\n${modelTable(results.models)}`);
}

async function runPatches(plan: Plan, results: Results): Promise<void> {
  const { model, sides, patches, dtypes, steps, emulator, quick } = plan;
  const library = emulator === "" ? null : emulator;
  const [variant] = variantsOf({ library, randomWeights: true }, [dtypes[0]!]);
  const count = Math.min(steps, patchSteps);
  const warmups = quick ? 0 : warmupsDefault;
  for await (const row of timePatches(model, sides, patches, variant!.gpu, count, warmups)) {
    results.patches.push(row);
  }
  const file: PatchFile = {
    gpu: emulator === "" ? probeDevice().gpuName : "emulated GPU",
    isEmulated: emulator !== "",
    model: model.name,
    dtype: dtypes[0]!,
    unet: model.unet,
    vaeFactor: model.vaeFactor,
    rows: results.patches,
  };
  await save(plan, "gpu-patches.json", file);
  process.stdout.write(`\n${patchTitle(file)}\n\n${patchTable(predictPatches(file))}`);
}

async function runPeer(plan: Plan, results: Results, peer: GpuPeer | null): Promise<void> {
  if (peer === null || peer.about.diffusers === null) return;
  const { model, sides, steps, compile } = plan;
  for await (const row of timePeerModels(peer, model, sides, steps, compile)) {
    results.peers.push(row);
  }
  process.stdout.write(`\n${peerTable(results.peers)}`);
}

const patchSteps = 12;

/** Chart: shares of the ceilings for one rank's UNet step. */
function chart({ operations }: Results): TopLevelSpec {
  const values = operations
    .filter(({ patches, part }) => patches === 1 && part === "UNet")
    .filter(({ count, ms }) => count * ms >= launchMs)
    .map(({ name, kind, share }) => ({ name, kind, share }));
  return {
    title: "Share of the measured ceiling, UNet step of one rank",
    data: { values },
    mark: "bar",
    encoding: {
      y: { field: "name", type: "nominal", sort: null, title: null, axis: { labelLimit: 340 } },
      x: { field: "share", type: "quantitative", axis: { format: "%" }, title: null },
      color: { field: "kind", type: "nominal", sort: null, title: null },
    },
  };
}
