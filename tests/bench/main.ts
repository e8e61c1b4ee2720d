/**
 * `bun run bench NAME`: what BasedXL measures about itself. Set-up first, as for every command;
 * each bench is one file beside this one.
 */
import { runEntry } from "../../src/setup/entry.ts";

const benches: Record<string, { about: string; run: (args: string[]) => Promise<number> }> = {
  parity: {
    about: "every number that is compared with PyTorch and diffusers, measured against allowed",
    run: async (args) => (await import("./parity.ts")).run(args),
  },
};

const name = process.argv[2] ?? "";
const bench = benches[name];
if (bench) {
  process.exitCode = await runEntry(process.argv.slice(2), () => bench.run(process.argv.slice(3)));
} else {
  const list = Object.entries(benches).map(([key, { about }]) => `  ${key}  ${about}`);
  process.stderr.write(`Usage: bun run bench NAME, where NAME is one of\n${list.join("\n")}\n`);
  process.exitCode = name === "" || name === "--help" ? 0 : 2;
}
