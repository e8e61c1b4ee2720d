/**
 * The benches by name, for `bun run bench NAME` and `basedxl bench NAME`. Each is one file beside
 * this one, imported when it runs. The tests share their measures (support/).
 */
import { BasedXLError } from "../errors.ts";
import { resources } from "../resources.ts";
import { suggestion } from "../terminal/flags.ts";
import { wrap } from "../terminal/help.ts";

interface Bench {
  about: string;
  /** True: it needs files that a binary does not include. */
  needsClone?: boolean;
  run: (args: string[]) => Promise<number>;
}

export const benches: Record<string, Bench> = {
  adapters: {
    about: "time of merging a LoRA into all linear layers of SDXL's UNet, at full size",
    needsClone: true,
    run: async (args) => (await import("./adapters.ts")).run(args),
  },
  bands: {
    about: "compressed exchange, rows by speed and automatic warm-up on four patches, with limits",
    run: async (args) => (await import("./bands.ts")).run(args),
  },
  binary: {
    about: "size, start-up and side effects of the one-file program, with limits",
    needsClone: true,
    run: async (args) => (await import("./binary.ts")).run(args),
  },
  bits: {
    about: "hashes of twelve CPU runs, to compare the bits of two clones",
    needsClone: true,
    run: async (args) => (await import("./bits.ts")).run(args),
  },
  cpu: {
    about: "operations and models on the CPU against the cores' peak and PyTorch",
    run: async (args) => (await import("./cpu.ts")).run(args),
  },
  "cpu-busy": {
    about: "a UNet call on the CPU beside other programs on its cores, at full size, with limits",
    needsClone: true,
    run: async (args) => (await import("./cpu-busy.ts")).run(args),
  },
  "cpu-peers": {
    about: "a UNet call on the CPU against onnxruntime and PyTorch, at full size, with limits",
    needsClone: true,
    run: async (args) => (await import("./cpu-peers.ts")).run(args),
  },
  "cudnn-plans": {
    about: "how the real cuDNN would run SDXL's operations on five GPUs; needs none of them",
    needsClone: true,
    run: async (args) => (await import("./cudnn-plans.ts")).run(args),
  },
  "eight-bit": {
    about: "a UNet call with 8-bit weights against f16 ones on the CPU, at full size",
    needsClone: true,
    run: async (args) => (await import("./eight-bit.ts")).run(args),
  },
  estimate: {
    about: "estimated times of requests on the CPU beside those of real runs",
    run: async (args) => (await import("./estimate.ts")).run(args),
  },
  gpu: {
    about:
      "operations, models, patches on a GPU against ceilings and PyTorch; --predict needs no GPU",
    needsClone: true,
    run: async (args) => (await import("./gpu.ts")).run(args),
  },
  int8: {
    about: "images in int8 against f32, also with outlier channels; a UNet call against bf16",
    needsClone: true,
    run: async (args) => (await import("./int8.ts")).run(args),
  },
  kernels: {
    about: "registers, spills and occupancy of every CUDA kernel; error of f16 sums (needs nvcc)",
    needsClone: true,
    run: async (args) => (await import("./kernels.ts")).run(args),
  },
  loading: {
    about: "bytes of weights that the host converts and sends to one and to eight emulated GPUs",
    needsClone: true,
    run: async (args) => (await import("./loading.ts")).run(args),
  },
  overhead: {
    about: "CPU time of samplers and prompts in a step against a UNet call of full size",
    needsClone: true,
    run: async (args) => (await import("./overhead.ts")).run(args),
  },
  parity: {
    about: "error of every result against PyTorch and diffusers, with limits",
    needsClone: true,
    run: async (args) => (await import("./parity.ts")).run(args),
  },
  prediction: {
    about: "gain of halo extrapolation over seeds, samplers, warm-ups and patches",
    needsClone: true,
    run: async (args) => (await import("./prediction.ts")).run(args),
  },
  quality: {
    about: "error of several patches against one rank, in every sync mode",
    run: async (args) => (await import("./quality.ts")).run(args),
  },
  reuse: {
    about:
      "time and error of images whose steps reuse earlier ones (--quality), against exact ones",
    run: async (args) => (await import("./reuse.ts")).run(args),
  },
  scaling: {
    about: "computation, received bytes and wait time per rank and step; prediction for GPUs",
    run: async (args) => (await import("./scaling.ts")).run(args),
  },
  serve: {
    about: "the server from outside: added time, health, shares, cancelling, kills",
    needsClone: true,
    run: async (args) => (await import("./serve.ts")).run(args),
  },
  signals: {
    about: "cost of signals between CPU ranks: one per tensor, or one per group of tensors",
    needsClone: true,
    run: async (args) => (await import("./signals.ts")).run(args),
  },
  "single-file": {
    about: "a checkpoint in one file against a folder: time to the first step, memory; full size",
    needsClone: true,
    run: async (args) => (await import("./single-file.ts")).run(args),
  },
  soak: {
    about: "what a process holds after a thousand mixed images, by itself and as a server",
    needsClone: true,
    run: async (args) => (await import("./soak.ts")).run(args),
  },
  tiling: {
    about: "error of images decoded in tiles against whole decoding",
    run: async (args) => (await import("./tiling.ts")).run(args),
  },
};

/** Former names of benches. */
const aliases: Record<string, string> = { posts: "signals" };

/** The help of `basedxl bench`. */
export function benchHelp(): string {
  const lines = [
    "Usage: basedxl bench NAME [flags]",
    "",
    ...wrap(
      "Measures BasedXL on this machine: a table on standard output, JSON and a chart in " +
        "bench-out/. basedxl bench NAME --help lists the flags of a bench.",
      lineWidth,
    ),
    "",
    "Examples:",
    "  basedxl bench scaling",
    "  basedxl bench quality --help",
    "",
    "Benches:",
    ...Object.entries(benches).flatMap(([name, bench]) => benchLines(name, bench)),
  ];
  return `${lines.join("\n")}\n`;
}

/** Runs the bench that `args` begin with. Throws "bad-option" for an unknown name. */
export async function runBench(args: string[]): Promise<number> {
  const [given = "", ...rest] = args;
  const name = aliases[given] ?? given;
  const bench = Object.hasOwn(benches, name) ? benches[name] : undefined;
  if (!bench) {
    const names = Object.keys(benches);
    throw new BasedXLError(
      "bad-option",
      `There is no bench "${name}".${suggestion(name, names)} The benches: ${names.join(", ")}.`,
    );
  }
  if (bench.needsClone && resources.isBinary) {
    throw new BasedXLError(
      "bad-option",
      `The bench ${name} needs files of the repository: run \`bun run bench ${name}\` in a clone \
of it.`,
    );
  }
  return await bench.run(rest);
}

// --- internal ---

const lineWidth = 80;
const textColumn = 14;

function benchLines(name: string, { about, needsClone }: Bench): string[] {
  const text = needsClone ? `${about} (in a clone)` : about;
  return wrap(text, lineWidth - textColumn).map((line, index) => {
    return (index === 0 ? `  ${name}` : "").padEnd(textColumn) + line;
  });
}
