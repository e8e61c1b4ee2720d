/**
 * The benches by name: what `bun run bench NAME` and `basedxl bench NAME` run. Each is one file
 * beside this one, imported when it runs. They live with the tests, whose measures they share.
 */
import { BasedXLError } from "../errors.ts";
import { resources } from "../resources.ts";
import { suggestion } from "../terminal/flags.ts";
import { wrap } from "../terminal/help.ts";

interface Bench {
  about: string;
  /** True: it needs files that a binary does not bring. */
  needsClone?: boolean;
  run: (args: string[]) => Promise<number>;
}

export const benches: Record<string, Bench> = {
  binary: {
    about: "size, start-up and effects of the one-file program, measured against allowed",
    needsClone: true,
    run: async (args) => (await import("./binary.ts")).run(args),
  },
  cpu: {
    about: "operations and models on the CPU against the cores' peak and PyTorch, in turns",
    run: async (args) => (await import("./cpu.ts")).run(args),
  },
  gpu: {
    about:
      "operations, models, patches on a GPU against ceilings and PyTorch; --predict needs none",
    needsClone: true,
    run: async (args) => (await import("./gpu.ts")).run(args),
  },
  kernels: {
    about: "registers, spills and occupancy of every CUDA kernel, error of f16 sums (needs nvcc)",
    needsClone: true,
    run: async (args) => (await import("./kernels.ts")).run(args),
  },
  parity: {
    about: "every number that is compared with PyTorch and diffusers, measured against allowed",
    needsClone: true,
    run: async (args) => (await import("./parity.ts")).run(args),
  },
  posts: {
    about: "what telling other ranks of each part costs, and what telling of several would save",
    needsClone: true,
    run: async (args) => (await import("./signals.ts")).run(args),
  },
  prediction: {
    about: "what predicting old halo rows gains, over seeds, samplers, warm-ups and patches",
    needsClone: true,
    run: async (args) => (await import("./prediction.ts")).run(args),
  },
  quality: {
    about: "how far images of several patches are from those of one rank, in every mode",
    run: async (args) => (await import("./quality.ts")).run(args),
  },
  scaling: {
    about: "computation, bytes and waiting per rank and step, and a prediction for GPUs",
    run: async (args) => (await import("./scaling.ts")).run(args),
  },
  tiling: {
    about: "how far images decoded in tiles are from those decoded whole",
    run: async (args) => (await import("./tiling.ts")).run(args),
  },
};

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

/** Runs the bench that `args` begin with. Throws "bad-option" for a name there is not. */
export async function runBench(args: string[]): Promise<number> {
  const [name = "", ...rest] = args;
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
