/**
 * A session on a GPU that hangs or has little memory, in a separate process, since the emulator
 * reads its environment once: run as `bun tests/support/stuck-run.ts
 * '<StuckWork as JSON>'`, it prints a `StuckRun`.
 */
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import type { GpuOptions } from "../../src/native/handle.ts";
import { draw, requestOf, type Work, withSession } from "./draw.ts";

export interface StuckWork {
  /**
   * open: only open the session; wait: wait for images; leave: close during one; grow: generate an
   * image, then a larger one.
   */
  does: "open" | "wait" | "leave" | "grow";
  rankCount?: number;
  width: number;
  height: number;
  gpu: GpuOptions;
}

export interface StuckRun {
  /** Messages, in order. */
  messages: string[];
  /** Bytes of an image that the CPU generated afterwards. */
  drawnBytes: number;
}

/** Runs itself on `work`, with the emulator configured by `environment`. */
export function runStuck(work: StuckWork, environment: Record<string, string>): StuckRun {
  const command = [process.execPath, import.meta.path, JSON.stringify(work)];
  const env = { ...process.env, ...environment };
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, { env });
  if (exitCode !== 0) throw new Error(stderr.toString());
  return JSON.parse(stdout.toString());
}

// --- internal ---

/** A GPU is given up after so long. */
const stallLimitMs = 400;

if (import.meta.main) console.log(JSON.stringify(await run(JSON.parse(process.argv[2] ?? "{}"))));

async function run({ does, gpu, width, height, rankCount }: StuckWork): Promise<StuckRun> {
  const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
  const messages: string[] = [];
  const report = (error: Error) => void messages.push(error.message);
  const onWarning = (warning: string) => void messages.push(warning);
  const testHooks = does === "grow" ? {} : { stallLimitMs };
  const stepCount = does === "grow" ? 1 : 2;
  const work: Work = { model, width, height, rankCount, stepCount, testHooks, onWarning };
  const opened = withSession({ ...work, gpu }, async (session) => {
    if (does === "open") return;
    if (does === "grow") {
      await session.image(requestOf(work));
      await session.image(requestOf({ ...work, height: 2 * height }));
      return;
    }
    const { promise: denoising, resolve: sees } = Promise.withResolvers<void>();
    const onProgress = ({ stage }: { stage: string }) => {
      if (stage === "denoise") sees();
    };
    const first = session.image(requestOf(work), { onProgress }).catch(report);
    if (does === "leave") {
      await denoising;
      await Bun.sleep(stallLimitMs);
      await session.close();
    }
    await first;
    if (does === "wait") await session.image(requestOf(work)).catch(report);
  });
  await opened.catch(report);
  const { images } = await draw({ model, width: 32, height: 32, stepCount: 2 });
  return { messages, drawnBytes: images[0]?.length ?? 0 };
}
