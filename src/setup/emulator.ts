/**
 * Builds the GPU emulator library: NVIDIA's functions implemented on the CPU, with the same kernels
 * compiled as C++ (zig/emulator/, cuda/host/). Only tests and `--device cuda-emulated` need it, so
 * no set-up builds it unasked: they do, or `bun run build:emulator`.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { BasedXLError } from "../errors.ts";
import { repositoryRoot } from "../setup.ts";
import { compilerOfPackages } from "./compiler.ts";
import { runEntry } from "./entry.ts";
import { withLock } from "./lock.ts";
import { libraryName } from "./platform.ts";
import { type Report, runTool } from "./tool.ts";

/** Builds the emulator where it is stale. Throws "setup" with the compiler's own message. */
export async function buildEmulator(report: Report): Promise<void> {
  const root = repositoryRoot;
  const zig = compilerOfPackages(root);
  if (!zig) throw new BasedXLError("setup", "There is no Zig compiler among the packages.");
  const lockPath = join(root, "zig-out", "emulator-lock");
  const [folder, name] = ["zig-out/lib", libraryName(process.platform)];
  if (!existsSync(join(root, folder, name.replace("basedxl", "basedxl_emulated")))) {
    report("Building the GPU emulator library, once: this takes a minute.");
  }
  await withLock({ path: lockPath, report }, () =>
    runTool({
      command: [zig.path, "build", "emulator", "-Doptimize=ReleaseFast", "--prefix", "zig-out"],
      cwd: root,
      env: {
        ...process.env,
        ...(zig.libFolder ? { ZIG_LIB_DIR: zig.libFolder } : {}),
        ZIG_GLOBAL_CACHE_DIR:
          process.env.ZIG_GLOBAL_CACHE_DIR ?? join(root, ".zig-cache", "global"),
      },
      failure: "The emulator did not build",
      hint: "",
      live: false,
    }),
  );
}

if (import.meta.main) {
  process.exitCode = await runEntry(process.argv.slice(2), async () => {
    const report = (line: string) => void process.stderr.write(`${line}\n`);
    await buildEmulator(report);
    report("The emulator is up to date.");
    return 0;
  });
}
