/**
 * The memory that generation takes, measured in a separate process: run as
 * `bun tests/support/memory-run.ts '<MemoryWork as JSON>'`, it prints a `MemoryRun`. Linux only.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import { NativeHandle } from "../../src/native/handle.ts";
import type { Session } from "../../src/pipeline/session.ts";
import { requestOf, type Work, withSession } from "./draw.ts";

export type MemoryWork = Required<
  Pick<Work, "width" | "height" | "rankCount" | "splitBatch" | "syncMode" | "stepCount">
>;

/** Bytes. */
export interface MemoryRun {
  /** Arenas of all ranks and weights that cannot be used as the file has them. */
  planned: number;
  /** What the process grew by, in memory of its own, from before loading to the image's end. */
  grown: number;
  /** The same after each step that was seen. */
  steps: { step: number; bytes: number }[];
}

/** Runs itself on `work`. */
export function measureMemory(work: MemoryWork): MemoryRun {
  const command = [process.execPath, import.meta.path, JSON.stringify(work)];
  const { exitCode, stdout, stderr } = Bun.spawnSync(command);
  if (exitCode !== 0) throw new Error(stderr.toString());
  return JSON.parse(stdout.toString());
}

// --- internal ---

if (import.meta.main) console.log(JSON.stringify(await run(JSON.parse(process.argv[2] ?? "{}"))));

async function run(asked: MemoryWork): Promise<MemoryRun> {
  const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
  const work: Work = { ...asked, model, wantLatents: false };
  const planned = await planOf(work);
  const before = ownBytes();
  const steps: MemoryRun["steps"] = [];
  const draw = async (session: Session) => {
    await session.image(requestOf(work), {
      onProgress: ({ stage, stepIndex }) => {
        if (stage !== "denoise") return;
        steps.push({ step: stepIndex, bytes: ownBytes() - before });
      },
    });
    return ownBytes() - before;
  };
  return { planned, grown: await withSession(work, draw), steps };
}

/** What the library counts before it loads anything. */
async function planOf({ model, width, height, rankCount = 1, splitBatch = true }: Work) {
  const handle = await NativeHandle.open(
    {
      model: nativeModelOf(model),
      rankCount,
      threadCount: 1,
      gpu: null,
      branchCount: 2,
      latentRows: height / model.vaeFactor,
      latentWidth: width / model.vaeFactor,
      splitBatch,
      imageCount: 1,
      vaeTileLatent: 0,
    },
    {},
  );
  const { scratchBytes, copyBytes } = handle.progress();
  await handle.close();
  Bun.gc(true);
  return Number(scratchBytes) + Number(copyBytes);
}

/** Resident memory that is no file's: mapped weights come and go as the system likes. */
function ownBytes(): number {
  const status = readFileSync("/proc/self/status", "utf8");
  return Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}
