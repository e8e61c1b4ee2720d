/**
 * `bun run bench NAME`: what BasedXL measures about itself. Set-up first, as for every command;
 * each bench is one file beside this one.
 */
import { BasedXLError } from "../../src/errors.ts";
import { runEntry } from "../../src/setup/entry.ts";

const benches: Record<string, { about: string; run: (args: string[]) => Promise<number> }> = {
  parity: {
    about: "every number that is compared with PyTorch and diffusers, measured against allowed",
    run: async (args) => (await import("./parity.ts")).run(args),
  },
  prediction: {
    about: "what predicting old border rows gains, over seeds, samplers, warm-ups and bands",
    run: async (args) => (await import("./prediction.ts")).run(args),
  },
  quality: {
    about: "how far pictures of several bands are from those of one rank, in every mode",
    run: async (args) => (await import("./quality.ts")).run(args),
  },
  scaling: {
    about: "computation, bytes and waiting per rank and step, and a prediction for GPUs",
    run: async (args) => (await import("./scaling.ts")).run(args),
  },
  tiling: {
    about: "how far pictures decoded in tiles are from those decoded whole",
    run: async (args) => (await import("./tiling.ts")).run(args),
  },
};

const name = process.argv[2] ?? "";
const bench = Object.hasOwn(benches, name) ? benches[name] : undefined;
if (bench) {
  process.exitCode = await runEntry(process.argv.slice(2), async () => {
    try {
      return await bench.run(process.argv.slice(3));
    } catch (error) {
      if (!(error instanceof BasedXLError)) throw error;
      process.stderr.write(`error: ${error.message}\n`);
      return error.code === "bad-option" ? 2 : 1;
    }
  });
} else {
  const list = Object.entries(benches).map(([key, { about }]) => `  ${key.padEnd(12)}${about}`);
  process.stderr.write(`Usage: bun run bench NAME, where NAME is one of\n${list.join("\n")}\n`);
  process.exitCode = name === "" || name === "--help" ? 0 : 2;
}
