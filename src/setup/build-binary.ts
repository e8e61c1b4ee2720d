/**
 * `bun run build [FILE]`: the set-up, then the binary at FILE (default dist/basedxl). The binary
 * runs on machines with the same operating system and CPU architecture.
 */
import { resolve } from "node:path";
import { BasedXLError } from "../errors.ts";
import { repositoryRoot } from "../setup.ts";
import { runEntry } from "./entry.ts";

process.exitCode = await runEntry(process.argv.slice(2), async () => {
  const [file = resolve(repositoryRoot, "dist", "basedxl")] = process.argv.slice(2);
  const { buildBinary } = await import("./binary.ts");
  try {
    const startMs = performance.now();
    const bytes = await buildBinary(resolve(file));
    const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
    process.stderr.write(`Built ${file} (${(bytes / 1e6).toFixed(1)} MB) in ${seconds} s\n`);
    return 0;
  } catch (error) {
    if (!(error instanceof BasedXLError)) throw error;
    process.stderr.write(`error: ${error.message}\n`);
    return 1;
  }
});
