/**
 * Images with changing adapters over 8-bit weights on an emulated GPU with little memory, in a
 * process of its own, since the emulator reads its environment once: run as
 * `bun tests/support/adapter-memory-run.ts`, it prints what became of each image.
 */
import { createHash } from "node:crypto";
import { openModelFolder } from "../../src/models/folder.ts";
import { keysOf, unetFile as loraFile, randomAdapter, removeAdapters } from "./adapter-file.ts";
import { latentsOf, requestOf, type Work, withSession } from "./draw.ts";
import { emulated } from "./emulator.ts";
import { copyVariant } from "./fp8.ts";
import { removeCopies } from "./model-copy.ts";

export interface Outcome {
  adapters: "none" | "products" | "convolutions";
  /** Of the error; null where there is an image. */
  message: string | null;
  /** Of the latents. */
  hash: string | null;
  /** In use on the GPU after the image. */
  deviceBytes: number;
}

/** No limit where `memoryMiB` is null. */
export function runAdapters(memoryMiB: number | null): Outcome[] {
  const limit = memoryMiB === null ? {} : { BASEDXL_EMULATOR_MEMORY_MIB: String(memoryMiB) };
  // Of those that the tests can be run on, one that keeps weights in 8 bits.
  const env = { ...process.env, BASEDXL_EMULATOR_GPU: "sm_90", ...limit };
  const command = [process.execPath, import.meta.path];
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, { env });
  if (exitCode !== 0) throw new Error(stderr.toString());
  return JSON.parse(stdout.toString());
}

// --- internal ---

async function outcomes(): Promise<Outcome[]> {
  const model = await openModelFolder(copyVariant("e4m3.plain").folder);
  const products = keysOf(loraFile, /(to_(q|k|v|out\.0)|ff\.net\.[02](\.proj)?)\.weight$/);
  const convolutions = keysOf(loraFile, /resnets.*conv[12]\.weight$/);
  const sets = {
    none: [],
    products: [randomAdapter("products", { [loraFile]: products }).adapter],
    convolutions: [randomAdapter("convolutions", { [loraFile]: convolutions }).adapter],
  };
  const size = { width: 32, height: 32, stepCount: 1, guidanceScale: 1 };
  const work: Work = { model, ...size, gpu: emulated() };
  return await withSession(work, async (session) => {
    const list: Outcome[] = [];
    const order = ["none", "products", "convolutions", "none", "products"] as const;
    for (const adapters of order) {
      try {
        const result = await session.image(requestOf({ ...work, adapters: sets[adapters] }));
        const hash = createHash("sha256").update(latentsOf(result)).digest("hex");
        list.push({ adapters, message: null, hash, deviceBytes: result.deviceBytes });
      } catch (error) {
        list.push({ adapters, message: (error as Error).message, hash: null, deviceBytes: 0 });
      }
    }
    return list;
  });
}

if (import.meta.main) {
  try {
    console.log(JSON.stringify(await outcomes()));
  } finally {
    removeAdapters();
    removeCopies();
  }
}
