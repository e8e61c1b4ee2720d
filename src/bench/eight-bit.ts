/**
 * `bun run bench eight-bit [FOLDER]`: one UNet call on the CPU with weights in e4m3 against the
 * same with f16, in turns, at SDXL's full size with random weights: CPU seconds, which other
 * programs change less, and seconds. The exit code is 1 when the ratio of CPU seconds exceeds its
 * limit.
 */
import { openModelFolder } from "../models/folder.ts";
import { nativeModelOf } from "../models/native-model.ts";
import { probeDevice } from "../native/device-info.ts";
import { ModelParts } from "../native/testing.ts";
import type { CpuDtype } from "../settings/names.ts";
import { runPart } from "./cpu-models.ts";
import { median } from "./cpu-ops.ts";
import { fullSizeFolder, writeFullSize, writeFullSizeF8 } from "./full-size.ts";

const pairCount = 5;
const ratioAllowed = 1.1;
const side = 512;
const usage = "Usage: bun run bench eight-bit [FOLDER]\n";

/** `args`: nothing, or a folder for the models (9.5 GB), which are written if they are missing. */
export async function run(args: string[]): Promise<number> {
  if (args.length > 1 || args[0]?.startsWith("-")) {
    process.stderr.write(usage);
    return 2;
  }
  const folder = args[0] ?? fullSizeFolder;
  const narrow = `${folder}-f8`;
  writeFullSize(folder);
  writeFullSizeF8(narrow, folder);
  process.stdout.write(`UNet call, ${side}x${side}, batch 1, median of ${pairCount}\n`);
  let isWithin = true;
  const dtypes = probeDevice().hasBf16 ? (["f32", "bf16"] as const) : (["f32"] as const);
  for (const dtype of dtypes) {
    const ratio = await compare([folder, narrow], dtype);
    isWithin &&= ratio <= ratioAllowed;
  }
  return isWithin ? 0 : 1;
}

// --- internal ---

interface Cost {
  cpuSeconds: number;
  seconds: number;
}

/** Prints a line; returns the ratio of CPU seconds. */
async function compare(folders: [wide: string, narrow: string], dtype: CpuDtype): Promise<number> {
  const parts: ModelParts[] = [];
  try {
    for (const folder of folders) {
      const model = await openModelFolder(folder);
      parts.push(await ModelParts.open(nativeModelOf(model), { dtype }));
    }
    const [wide, narrow] = parts as [ModelParts, ModelParts];
    const pairs: [Cost, Cost][] = [];
    // The first pair reads the files.
    for (let i = 0; i <= pairCount; i++) {
      const pair: [Cost, Cost] = [await costOf(wide), await costOf(narrow)];
      if (i > 0) pairs.push(pair);
    }
    const ratioOf = (key: keyof Cost) => median(pairs.map(([f16, f8]) => f8[key] / f16[key]));
    const middle = (i: 0 | 1, key: keyof Cost) => median(pairs.map((pair) => pair[i][key]));
    const ratio = ratioOf("cpuSeconds");
    for (const [key, unit] of [
      ["cpuSeconds", "CPU s"],
      ["seconds", "s"],
    ] as const) {
      const values = [middle(0, key), middle(1, key), ratioOf(key)].map((x) => x.toFixed(3));
      const bar = key === "cpuSeconds" ? `  (bar ${ratioAllowed})` : "";
      const [f16, f8, both] = values;
      process.stdout.write(
        `${dtype.padEnd(5)}f16 ${f16} ${unit}  e4m3 ${f8} ${unit}  ${both}${bar}\n`,
      );
    }
    return ratio;
  } finally {
    for (const part of parts) await part.close();
  }
}

async function costOf(parts: ModelParts): Promise<Cost> {
  const before = process.cpuUsage();
  const milliseconds = await runPart(parts, "unet", side / 8);
  const { user, system } = process.cpuUsage(before);
  return { cpuSeconds: (user + system) / 1e6, seconds: milliseconds / 1e3 };
}
