/**
 * `bun run bench NAME`: runs a bench, after the set-up that every command starts with.
 */
import { runEntry } from "../setup/entry.ts";
import { writeGoldenModel } from "./support/golden-model.ts";

const args = process.argv.slice(2);

process.exitCode = await runEntry(args, async () => {
  writeGoldenModel();
  const { runCli } = await import("../cli.ts");
  return await runCli(["bench", ...args]);
});
