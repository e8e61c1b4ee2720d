/**
 * `bun run test:gpu [arguments of bun test]`: runs the tests with the emulator as the system's GPU
 * driver. The emulator has the names of NVIDIA's libraries in a folder of LD_LIBRARY_PATH, where
 * the system's loader finds it first; the program has no switch for this.
 */
import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { emulatorPath } from "../../src/native/library.ts";
import { buildEmulator } from "../../src/setup/emulator.ts";
import { runEntry } from "../../src/setup/entry.ts";
import { driverFolderPrefix } from "./driver-folder.ts";

const names = [
  "libcuda.so.1",
  "libcublasLt.so.13",
  "libcudnn.so.9",
  "libnccl.so.2",
  "libnvrtc.so.13",
];

process.exitCode = await runEntry([], async () => {
  await buildEmulator((line) => void process.stderr.write(`${line}\n`));
  const folder = mkdtempSync(join(tmpdir(), driverFolderPrefix));
  try {
    for (const name of names) symlinkSync(emulatorPath(), join(folder, name));
    const child = Bun.spawn([process.execPath, "test", ...process.argv.slice(2)], {
      env: { ...process.env, LD_LIBRARY_PATH: folder },
      stdio: ["ignore", "inherit", "inherit"],
    });
    return await child.exited;
  } finally {
    rmSync(folder, { recursive: true });
  }
});
