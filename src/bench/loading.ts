/**
 * `bun run bench loading [FOLDER] [--one-copy]`: what loading a model's weights (default: the
 * bundled one) moves to one emulated GPU and to eight: bytes over each GPU's link, those out of
 * pageable memory, and seconds. A GPU's own link is what bounds loading; the emulator's copies
 * share this machine's cores instead. With --one-copy the weights of all emulated GPUs are one
 * memory, so that eight times SDXL's need not fit: every copy is made and counted, over the
 * others' bytes. The exit code is 1 where a GPU of eight gets more than 1.3 times what one alone
 * gets, or anything out of pageable memory.
 */
import { openModelFolder } from "../models/folder.ts";
import { emulatorPath } from "../native/library.ts";
import { bytesToEmulatedGpu, setEmulatedGpuCount, shareEmulatedMemory } from "../native/testing.ts";
import { openSession } from "../pipeline/session.ts";
import { resources } from "../resources.ts";
import { renderTable } from "./report.ts";

const gpuCounts = [1, 8];
const ratioAllowed = 1.3;
/** The size of an image that is never generated. */
const side = 256;
const oneCopyFlag = "--one-copy";
/** With it; of the rest, which is not shared, little is ever touched. */
const sharedBytesMin = 1 << 30;

export async function run(args: string[]): Promise<number> {
  const isOneCopy = args.includes(oneCopyFlag);
  const rest = args.filter((argument) => argument !== oneCopyFlag);
  if (rest.length > 1 || rest[0]?.startsWith("-")) {
    process.stderr.write(`Usage: bun run bench loading [FOLDER] [${oneCopyFlag}]\n`);
    return 2;
  }
  await resources.buildEmulator((line) => void process.stderr.write(`${line}\n`));
  if (isOneCopy) shareEmulatedMemory(sharedBytesMin);
  const folder = rest[0] ?? resources.bundledModel();
  const rows: Loading[] = [];
  for (const count of gpuCounts) rows.push(await load(folder, count));
  const cells = rows.map(({ gpuCount, most, pageable, seconds }) => [
    String(gpuCount),
    (most / 1e6).toFixed(2),
    (pageable / 1e6).toFixed(2),
    seconds.toFixed(2),
  ]);
  const heads = ["GPUs", "MB to each, most", "of these pageable", "seconds here"];
  process.stdout.write(renderTable(heads, cells));
  if (isOneCopy) {
    process.stdout.write("One copy: the weights of all emulated GPUs share one memory.\n");
  }
  const [one, eight] = rows as [Loading, Loading];
  const ratio = eight.most / one.most;
  process.stdout.write(`Eight against one: ${ratio.toFixed(2)}, and ${ratioAllowed} is allowed.\n`);
  const pageable = Math.max(...rows.map((row) => row.pageable));
  return ratio <= ratioAllowed && pageable === 0 ? 0 : 1;
}

// --- internal ---

interface Loading {
  gpuCount: number;
  /** Bytes of the GPU that got most. */
  most: number;
  pageable: number;
  seconds: number;
}

async function load(folder: string, gpuCount: number): Promise<Loading> {
  setEmulatedGpuCount(gpuCount);
  const model = await openModelFolder(folder);
  const start = performance.now();
  const session = await openSession({
    model,
    width: side,
    height: side,
    rankCount: gpuCount,
    threadCount: 0,
    splitBatch: false,
    guidance: true,
    imageCount: 1,
    gpu: {
      dtype: "f16",
      share: false,
      fp16Accumulate: false,
      transport: "nccl",
      graphs: true,
      library: emulatorPath(),
    },
  });
  const seconds = (performance.now() - start) / 1e3;
  const gpus = Array.from({ length: gpuCount }, (_, gpu) => bytesToEmulatedGpu(gpu));
  await session.close();
  return {
    gpuCount,
    most: Math.max(...gpus.map(({ pinned, pageable }) => pinned + pageable)),
    pageable: Math.max(...gpus.map(({ pageable }) => pageable)),
    seconds,
  };
}
