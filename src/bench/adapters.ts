/**
 * `bun run bench adapters`: the time that merging a LoRA of rank 32 over all linear layers of
 * SDXL's UNet takes on this machine's cores, at full size, and the time for the same set again. The
 * weights are random, and f16, in the model and in the LoRA.
 */

import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { BasedXLError } from "../errors.ts";
import { openModelFolder } from "../models/folder.ts";
import { nativeModelOf } from "../models/native-model.ts";
import { readSafetensorsHeader } from "../models/safetensors-header.ts";
import { type Adapter, type AdapterTarget, adapterBytes } from "../native/adapters.ts";
import { NativeHandle, smallestOptions } from "../native/handle.ts";
import { bytesOf } from "../native/library.ts";
import { fullSizeFolder, writeFullSize } from "./full-size.ts";
import { headOf } from "./support/safetensors.ts";

const rank = 32;
/** Seconds that are promised on two cores. */
const bars = { merged: 6, again: 1 };
const usage = "Usage: bun run bench adapters [FOLDER]\n";

interface Applied {
  seconds: number;
  /** Of all threads, in the whole job. */
  cpuSeconds: { user: number; system: number };
}

/** `args`: nothing, or a folder for the model (6.9 GB), which is written unless it is there. */
export async function run(args: string[]): Promise<number> {
  if (args.length > 1 || args[0]?.startsWith("-")) {
    process.stderr.write(usage);
    return 2;
  }
  const folder = args[0] ?? fullSizeFolder;
  writeFullSize(folder);
  const path = join(folder, "lora.safetensors");
  try {
    return await measure(folder, writeLora(folder, path));
  } finally {
    rmSync(path, { force: true });
  }
}

// --- internal ---

async function measure(folder: string, adapter: Adapter): Promise<number> {
  const model = await openModelFolder(folder);
  const unit = model.sizeMultiple / model.vaeFactor;
  const options = { ...smallestOptions(nativeModelOf(model), unit), threadCount: 0 };
  const handle = await NativeHandle.open(options, {});
  // The smallest job: what it computes does not matter.
  const sample = new Float32Array(unit * unit * model.vae.latentChannels);
  const job = { kind: "decode", latentRows: unit, latentWidth: unit } as const;
  const apply = async (adapters: Adapter[]) => {
    const structs = adapterBytes(adapters);
    const cpuBefore = process.cpuUsage();
    const { adaptNs, mergedBytes } = await handle.run(
      { ...job, sample: bytesOf(sample), adapters: bytesOf(structs.bytes) },
      [sample, structs],
      {},
    );
    const { user, system } = process.cpuUsage(cpuBefore);
    const cpuSeconds = { user: user / 1e6, system: system / 1e6 };
    return { seconds: Number(adaptNs) / 1e9, bytes: Number(mergedBytes), cpuSeconds };
  };
  try {
    const cores = availableParallelism();
    const count = adapter.targets.length;
    print(`LoRA of rank ${rank} over ${count} linear layers, f16, ${cores} cores`);
    // The first reads the model's file, if the system does not hold it.
    const first = await apply([adapter]);
    const other = await apply([{ ...adapter, unetScale: 0.5 }]);
    const again = await apply([adapter]);
    const none = await apply([]);
    print(`merged, ${(first.bytes / 2 ** 30).toFixed(2)} GiB   ${show(first)}`);
    print(`at another scale   ${show(other)}  (bar ${bars.merged} s on two cores)`);
    print(`the first again    ${show(again)}  (bar ${bars.again} s)`);
    print(`none               ${show(none)}`);
    return other.seconds <= bars.merged && again.seconds <= bars.again ? 0 : 1;
  } finally {
    await handle.close();
  }
}

/** Writes the LoRA; returns it with a scale of 1. */
function writeLora(folder: string, path: string): Adapter {
  const unet = join(folder, "unet/diffusion_pytorch_model.safetensors");
  const { tensors } = readSafetensorsHeader(unet);
  const header: Record<string, unknown> = {};
  const targets: AdapterTarget[] = [];
  let offset = 0;
  let largest = 0;
  for (const [key, { shape }] of tensors) {
    const [out = 0, inner = 0] = shape;
    if (shape.length !== 2) continue;
    const names = { up: `${key}.up`, down: `${key}.down` };
    for (const [name, dims] of [
      [names.up, [out, rank]],
      [names.down, [rank, inner]],
    ] as const) {
      const bytes = 2 * dims[0] * dims[1];
      header[name] = { dtype: "F16", shape: dims, data_offsets: [offset, offset + bytes] };
      offset += bytes;
      largest = Math.max(largest, bytes);
    }
    targets.push({ component: "unet", key, algorithm: "lora", scale: 1, tensors: names });
  }
  if (targets.length === 0) throw new BasedXLError("bad-model", `${unet} has no linear layers.`);
  const pool = Float16Array.from({ length: largest / 2 }, () => 0.02 * (Math.random() - 0.5));
  const file = openSync(path, "w");
  try {
    writeSync(file, headOf(header));
    for (let done = 0; done < offset; done += largest) {
      writeSync(file, new Uint8Array(pool.buffer, 0, Math.min(largest, offset - done)));
    }
  } finally {
    closeSync(file);
  }
  return { path, unetScale: 1, textScale: 1, targets };
}

/** Other work on the machine lengthens the time, and leaves the cores' seconds of the job. */
function show({ seconds, cpuSeconds: { user, system } }: Applied): string {
  const cores = `${user.toFixed(2).padStart(6)} + ${system.toFixed(2)}`;
  return `${seconds.toFixed(3).padStart(7)} s ${cores} s of cores, user + system`;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
