/**
 * `bun run bench int8`: images in int8 against f32, also of a model with outlier channels; with
 * --only time, a UNet call at SDXL's full size in int8 against bf16, in turns. The exit code is 1
 * when a limit is not met.
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ArgsDef } from "citty";
import sharp from "sharp";
import { openModelFolder } from "../models/folder.ts";
import type { Model } from "../models/model.ts";
import { nativeModelOf } from "../models/native-model.ts";
import { probeDevice } from "../native/device-info.ts";
import { ModelParts } from "../native/testing.ts";
import { openSession } from "../pipeline/session.ts";
import { makeSchedule } from "../schedule.ts";
import type { CpuDtype } from "../settings/names.ts";
import { type HelpText, renderHelp } from "../terminal/help.ts";
import { runPart } from "./cpu-models.ts";
import { median } from "./cpu-ops.ts";
import { namesOf, readFlags, sharedFlags, textOf, wholeOf } from "./flags.ts";
import { fullSizeFolder, writeFullSize } from "./full-size.ts";
import { type Case, type Generation, generateImage } from "./generation.ts";
import { type Image, psnr } from "./image-measures.ts";
import { writeOutlierModel } from "./support/outliers.ts";
import { readPrompts } from "./support/prompt-file.ts";

/** Of images against f32, in dB. */
const psnrMeanMin = 35;
const psnrWorstMin = 30;
/** Time in bf16 over that in int8. */
const ratioMin = 1.4;
/** Of the channels before each linear layer. */
const outlierShare = 0.02;
const parts = ["images", "time"] as const;
const bundled = join(import.meta.dir, "../assets/mini-sdxl");

const flagTexts = {
  only: { type: "string", valueHint: "LIST", description: "images, time. Default: images." },
  model: {
    type: "string",
    valueHint: "FOLDER",
    description:
      "Of time: folder of a full-size model with random weights (6.6 GB), written if it is " +
      "missing. Default: bench-out/full-size.",
  },
  prompts: {
    type: "string",
    valueHint: "FILE",
    description: "One prompt per line. Default: 40 of the words that mini-sdxl knows.",
  },
  pairs: { type: "string", valueHint: "N", description: "Of time: pairs of calls. Default: 5." },
  side: { type: "string", valueHint: "N", description: "Of time: pixels. Default: 512." },
  keep: {
    type: "string",
    valueHint: "FOLDER",
    description:
      "Write the images there, for tests/reference/train_mini/judge_images.py, which finds what " +
      "is seen in them.",
  },
  help: sharedFlags.help,
} as const satisfies ArgsDef;

const help: HelpText = {
  usage: "bun run bench int8 [flags]",
  summary:
    "Compares images in int8 with f32 (PSNR), also those of a model with outlier channels, and " +
    "the time of a UNet call in int8 with bf16.",
  examples: [
    "bun run bench int8",
    "bun run bench int8 --only time --model ~/full-size",
    "bun run bench int8 --keep images --prompts prompts.txt",
  ],
  groups: [
    ["What", ["only", "prompts", "model", "pairs", "side"]],
    ["Output", ["keep", "help"]],
  ],
  notes: [],
};

export async function run(args: string[]): Promise<number> {
  const flags = readFlags(args, flagTexts);
  if (flags.help) {
    process.stdout.write(renderHelp(help, flagTexts));
    return 0;
  }
  const only = namesOf(flags, "only", parts) ?? ["images"];
  let isWithin = true;
  if (only.includes("images")) {
    const path = textOf(flags, "prompts");
    const prompts = path === undefined ? promptsDefault() : readPrompts(path);
    isWithin = await compareImages(prompts, textOf(flags, "keep") ?? null);
  }
  if (only.includes("time")) {
    const folder = textOf(flags, "model") ?? fullSizeFolder;
    const pairs = wholeOf(flags, "pairs", { min: 1, max: 99 }) ?? 5;
    const side = wholeOf(flags, "side", { min: 64, max: 4096 }) ?? 512;
    isWithin = (await compareTimes(folder, pairs, side)) && isWithin;
  }
  return isWithin ? 0 : 1;
}

// --- internal ---

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** One and two things in turns, over all colours, things and places of mini-sdxl's README. */
function promptsDefault(): string[] {
  const colours = "red green blue yellow orange purple white black pink cyan brown gray".split(" ");
  const things =
    "circle square triangle star ring cross heart diamond house tree moon flower boat fish " +
    "mushroom cat";
  const relations = ["above a", "below a", "left of a", "right of a"];
  const places = ["in the sky", "by the sea", "on the grass", "in the desert", "in the snow"];
  const backgrounds = ["", " at night", " at sunset", " in the rain"];
  const pick = <T>(list: readonly T[], i: number) => list[i % list.length]!;
  return Array.from({ length: 40 }, (_, i) => {
    const one = (j: number) => `${pick(colours, 5 * j + 1)} ${pick(things.split(" "), 7 * j)}`;
    const place = pick(places, i) + pick(backgrounds, Math.floor(i / 5));
    if (i % 2 === 0) return `a ${one(i)} ${place}`;
    return `a ${one(i)} ${pick(relations, (i - 1) / 2)} ${one(i + 3)} ${place}`;
  });
}

/** Prints a line for each model and type; whether those in int8 are near enough. */
async function compareImages(prompts: string[], keep: string | null): Promise<boolean> {
  const cases = prompts.map((prompt, i): Case => ({ prompt, seed: BigInt(1000 + i) }));
  const folder = mkdtempSync(join(tmpdir(), "basedxl-outliers-"));
  let isWithin = true;
  try {
    writeOutlierModel(bundled, folder, outlierShare);
    const reference = await imagesOf(bundled, "f32", cases, keep && join(keep, "f32"));
    print(`mini-sdxl, ${cases.length} images, 25 steps, PSNR against f32 in dB`);
    print("model      dtype   mean  worst");
    const dtypes = (["bf16", "int8"] as const).filter((d) => d === "int8" || hasBf16());
    for (const [name, path] of [
      ["as it is", bundled],
      ["outliers", folder],
    ] as const) {
      for (const dtype of dtypes) {
        const kept = keep && join(keep, `${dtype}-${name.replaceAll(" ", "-")}`);
        const images = await imagesOf(path, dtype, cases, kept);
        const all = images.map((image, i) => psnr(image, reference[i]!));
        const mean = all.reduce((sum, x) => sum + x, 0) / all.length;
        const worst = Math.min(...all);
        const [shown, shownWorst] = [mean, worst].map((x) => x.toFixed(1).padStart(5));
        const bars = dtype === "int8" ? `  (bars ${psnrMeanMin}, ${psnrWorstMin})` : "";
        print(`${name.padEnd(10)} ${dtype}  ${shown}  ${shownWorst}${bars}`);
        if (dtype === "int8") isWithin &&= mean >= psnrMeanMin && worst >= psnrWorstMin;
      }
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  return isWithin;
}

function hasBf16(): boolean {
  return probeDevice().hasBf16;
}

async function imagesOf(
  folder: string,
  dtype: CpuDtype,
  cases: readonly Case[],
  keep: string | null,
): Promise<Image[]> {
  const model = await openModelFolder(folder);
  const generation = generationOf(model);
  const { width, height } = generation;
  const session = await openSession({
    model,
    width,
    height,
    guidance: true,
    imageCount: 1,
    rankCount: 1,
    splitBatch: false,
    threadCount: 0,
    dtype,
  });
  const images: Image[] = [];
  try {
    const how = { syncMode: "full_sync", warmupSteps: 0, splitBatch: false } as const;
    for (const each of cases) {
      const result = await generateImage(session, generation, each, how);
      images.push({ pixels: result.images[0]!, width, height });
    }
  } finally {
    await session.close();
  }
  if (keep !== null) await keepImages(images, keep);
  return images;
}

function generationOf(model: Model): Generation {
  const stepCount = model.defaults.steps ?? 25;
  return {
    model,
    ...model.nativeSize,
    guidanceScale: model.defaults.guidanceScale ?? 4,
    schedule: makeSchedule("euler", model.scheduler, { stepCount }),
    stepCount,
  };
}

async function keepImages(images: readonly Image[], folder: string): Promise<void> {
  mkdirSync(folder, { recursive: true });
  for (const [i, { pixels, width, height }] of images.entries()) {
    const image = sharp(pixels, { raw: { width, height, channels: 3 } });
    await image.png().toFile(join(folder, `${String(i).padStart(3, "0")}.png`));
  }
}

/** Prints the medians; whether int8 is as much faster as it should be. */
async function compareTimes(folder: string, pairCount: number, side: number): Promise<boolean> {
  writeFullSize(folder);
  const wide = hasBf16() ? "bf16" : "f32";
  const model = nativeModelOf(await openModelFolder(folder));
  const opened: ModelParts[] = [];
  try {
    for (const dtype of [wide, "int8"] as const) {
      opened.push(await ModelParts.open(model, { dtype }));
    }
    const pairs: [number, number][] = [];
    // The first pair reads the files.
    for (let i = 0; i <= pairCount; i++) {
      const times: number[] = [];
      for (const part of opened) times.push(await runPart(part, "unet", side / 8));
      if (i > 0) pairs.push(times as [number, number]);
    }
    const ratio = median(pairs.map(([slow, fast]) => slow / fast));
    const middle = (i: 0 | 1) => median(pairs.map((pair) => pair[i])).toFixed(0);
    print(
      `UNet call, ${side}x${side}, median of ${pairCount}: ${wide} ${middle(0)} ms, ` +
        `int8 ${middle(1)} ms, ${ratio.toFixed(2)} times (bar ${ratioMin})`,
    );
    return ratio >= ratioMin;
  } finally {
    for (const part of opened) await part.close();
  }
}
