/**
 * `bun run build [FILE]`: the set-up, then the binary at FILE (default dist/basedxl). The binary
 * runs on machines with the same operating system and CPU architecture.
 * `bun run build --kit [FILE]`: the kit for GPUs (default dist/basedxl-gpu-kit.tar.xz), with
 * kernels for `--gpu-arch LIST` (default 90a: H100 and H200).
 */
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { BasedXLError } from "../errors.ts";
import { repositoryRoot } from "../setup.ts";
import { runEntry } from "./entry.ts";

process.exitCode = await runEntry(process.argv.slice(2), async () => {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: { kit: { type: "boolean" }, "gpu-arch": { type: "string", default: "90a" } },
    });
    const [file] = positionals;
    const startMs = performance.now();
    const path = resolve(file ?? resolve(repositoryRoot, "dist", nameOf(values.kit)));
    const bytes = await (values.kit ? kit(path, values["gpu-arch"]) : binary(path));
    const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
    const megabytes = (bytes / 1e6).toFixed(1);
    process.stderr.write(`Built ${file ?? path} (${megabytes} MB) in ${seconds} s\n`);
    return 0;
  } catch (error) {
    if (!(error instanceof BasedXLError || error instanceof TypeError)) throw error;
    process.stderr.write(`error: ${error.message}\n`);
    return 1;
  }
});

function nameOf(isKit: boolean | undefined): string {
  return isKit ? "basedxl-gpu-kit.tar.xz" : "basedxl";
}

async function binary(path: string): Promise<number> {
  const { buildBinary } = await import("./binary.ts");
  const { bundlePage } = await import("../serve/page/bundle.ts");
  return await buildBinary(path, await bundlePage());
}

async function kit(out: string, architectures: string): Promise<number> {
  if (!/^\d+[af]?(,\d+[af]?)*$/.test(architectures)) {
    throw new BasedXLError(
      "setup",
      `--gpu-arch takes numbers as nvcc names them, such as 90a or 80,86, not ${architectures}.`,
    );
  }
  const { buildKit } = await import("./kit.ts");
  const report = (line: string) => void process.stderr.write(`${line}\n`);
  return await buildKit({ out, architectures, report });
}
