/**
 * Opens sessions one after the other on an emulated GPU with little memory, in a process of its
 * own, since the emulator reads its environment once: run as `bun tests/support/open-run.ts
 * '<OpenWork[] as JSON>'`, it prints the message of each that was refused, null for the others.
 */
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { openUpscaler } from "../../src/networks/upscaler.ts";
import { openSession } from "../../src/pipeline/session.ts";
import { emulated } from "./emulator.ts";

export interface OpenWork {
  width: number;
  height: number;
  imageCount: number;
  vaeTiling: boolean;
  rankCount: number;
  /** An image that is enlarged first, in tiles of so many pixels; the upscaler's path. */
  upscale?: { upscaler: string; width: number; height: number; tileSize: number };
}

export function runOpen(works: OpenWork[], memoryMiB: number): (string | null)[] {
  const command = [process.execPath, import.meta.path, JSON.stringify(works)];
  const env = { ...process.env, BASEDXL_EMULATOR_MEMORY_MIB: String(memoryMiB) };
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, { env });
  if (exitCode !== 0) throw new Error(stderr.toString());
  return JSON.parse(stdout.toString());
}

// --- internal ---

if (import.meta.main) {
  const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
  const messages: (string | null)[] = [];
  for (const work of JSON.parse(process.argv[2] ?? "[]") as OpenWork[]) {
    const rest = { model, threadCount: 0, gpu: emulated(), guidance: true, splitBatch: true };
    try {
      const { upscale: given, ...image } = work;
      const upscale = given && { ...given, network: openUpscaler(given.upscaler) };
      const session = await openSession({ ...rest, ...image, upscale });
      await session.close();
      messages.push(null);
    } catch (error) {
      messages.push((error as Error).message);
    }
  }
  console.log(JSON.stringify(messages));
}
