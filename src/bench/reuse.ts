/**
 * `bun run bench reuse`: images of each --quality against exact ones, on one rank and in patches:
 * time, PSNR, and how far patches are from one rank. The exit code is 1 when a limit is not met.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { ArgsDef } from "citty";
import sharp from "sharp";
import { resolveModelPath } from "../models/locate.ts";
import { openModel } from "../models/open.ts";
import { type GenerateResult, Pipeline } from "../pipeline.ts";
import { type Quality, qualities } from "../settings/names.ts";
import { type HelpText, renderHelp } from "../terminal/help.ts";
import { median } from "./cpu-ops.ts";
import { readFlags, sharedFlags, textOf, wholeOf } from "./flags.ts";
import { psnr } from "./image-measures.ts";
import { renderTable } from "./report.ts";
import { relativeL2 } from "./support/compare.ts";
import { readPrompts } from "./support/prompt-file.ts";

/** Times faster than exact in the denoising loop, and decibels of the worst image. */
const bars: Partial<Record<Quality, { ratio: number; psnr: number }>> = {
  balanced: { ratio: 2, psnr: 30 },
  fast: { ratio: 3, psnr: 0 },
};
/** Error of patches against one rank, over that without reuse. */
const errorRatioMax = 1.2;
const promptsDefault = [
  "a red house left of a green tree on the grass",
  "a large orange cat on a purple background",
  "a purple diamond in the desert at sunset",
  "a blue boat below a yellow moon by the sea at night",
  "a white fish above a black square",
  "a pink heart right of a brown mushroom in the snow",
];

const flagTexts = {
  model: sharedFlags.model,
  prompts: { type: "string", valueHint: "FILE", description: "One prompt per line. Default: six." },
  patches: { type: "string", valueHint: "N", description: "Patches beside one rank. Default: 4." },
  steps: sharedFlags.steps,
  keep: {
    type: "string",
    valueHint: "FOLDER",
    description: "Write the images there, for tests/reference/train_mini/judge_images.py.",
  },
  help: sharedFlags.help,
} as const satisfies ArgsDef;

const help: HelpText = {
  usage: "bun run bench reuse [flags]",
  summary: "Compares images of each --quality with exact ones: time, PSNR, error of patches.",
  examples: ["bun run bench reuse", "bun run bench reuse --prompts prompts.txt --keep images"],
  groups: [
    ["What", ["model", "prompts", "patches", "steps"]],
    ["Output", ["keep", "help"]],
  ],
  notes: ["Images of all qualities are generated in turns, and times compared image by image."],
};

export async function run(args: string[]): Promise<number> {
  const flags = readFlags(args, flagTexts);
  if (flags.help) {
    process.stdout.write(renderHelp(help, flagTexts));
    return 0;
  }
  const path = textOf(flags, "prompts");
  const prompts = path === undefined ? promptsDefault : readPrompts(path);
  const patches = wholeOf(flags, "patches", { min: 2, max: 16 }) ?? 4;
  const stepCount = wholeOf(flags, "steps", { min: 1, max: 1000 });
  const work = { modelPath: textOf(flags, "model"), prompts, stepCount };
  const keep = textOf(flags, "keep") ?? null;
  const one = await generateAll(work, 1, keep);
  const several = await generateAll(work, patches, keep);
  const rows = qualities.flatMap((quality) => [
    rowOf(quality, 1, one, one),
    rowOf(quality, patches, several, one),
  ]);
  process.stdout.write(`${prompts.length} images, on one rank and in ${patches} patches:\n\n`);
  const header = ["quality", "ranks", "faster", "whole image", "PSNR mean", "worst", "patch error"];
  process.stdout.write(`${renderTable(header, rows.map(textsOf))}\n`);
  return rows.every((row) => isWithin(row, rows)) ? 0 : 1;
}

// --- internal ---

type Results = Record<Quality, GenerateResult[]>;

interface Row {
  quality: Quality;
  ranks: number;
  /** In the denoising loop, and with text and decode. */
  ratio: number;
  imageRatio: number;
  psnr: number[];
  /** Mean relative L2 of the latents against one rank of the same quality. */
  patchError: number;
}

async function generateAll(
  work: { modelPath: string | undefined; prompts: string[]; stepCount: number | undefined },
  rankCount: number,
  keep: string | null,
): Promise<Results> {
  const model = await openModel((await resolveModelPath(work.modelPath)).path);
  const shared = { splitBatch: false, wantLatents: true, stepCount: work.stepCount };
  const devices = { device: "cpu", rankCount } as const;
  const first = { ...shared, prompt: work.prompts[0]!, seeds: [0n] };
  await using pipeline = await Pipeline.open({ model, devices, first });
  for (const quality of qualities) await pipeline.generate({ ...first, quality });
  const results: Results = { exact: [], high: [], balanced: [], fast: [] };
  for (const [i, prompt] of work.prompts.entries()) {
    for (const quality of qualities) {
      const request = { ...shared, prompt, seeds: [BigInt(1000 + i)], quality };
      const result = await pipeline.generate(request);
      results[quality].push(result);
      if (keep !== null) await save(join(keep, `${quality}-${rankCount}`), i, result);
    }
  }
  return results;
}

async function save(folder: string, index: number, result: GenerateResult): Promise<void> {
  const { pixels, width, height } = result.images[0]!;
  mkdirSync(folder, { recursive: true });
  const name = `${String(index).padStart(3, "0")}.png`;
  await sharp(pixels, { raw: { width, height, channels: 3 } }).toFile(join(folder, name));
}

function rowOf(quality: Quality, ranks: number, results: Results, one: Results): Row {
  const [ours, exact] = [results[quality], results.exact];
  const ratioOf = (time: (result: GenerateResult) => number) =>
    median(ours.map((result, i) => time(exact[i]!) / time(result)));
  const errors = ours.map((result, i) => relativeL2(result.latents!, one[quality][i]!.latents!));
  return {
    quality,
    ranks,
    ratio: ratioOf(({ timings }) => timings.denoiseMs),
    imageRatio: ratioOf(({ timings: t }) => t.textMs + t.denoiseMs + t.decodeMs),
    psnr: ours.map((result, i) => psnr(result.images[0]!, exact[i]!.images[0]!)),
    patchError: errors.reduce((sum, error) => sum + error, 0) / errors.length,
  };
}

function textsOf({ quality, ranks, ratio, imageRatio, psnr: all, patchError }: Row): string[] {
  const mean = all.reduce((sum, value) => sum + value, 0) / all.length;
  const numbers = [mean, Math.min(...all)].map((x) => (Number.isFinite(x) ? x.toFixed(1) : "inf"));
  const error = ranks === 1 ? "" : patchError.toExponential(2);
  const times = [ratio, imageRatio].map((x) => `${x.toFixed(2)}x`);
  return [quality, String(ranks), ...times, ...numbers, error];
}

function isWithin(row: Row, rows: readonly Row[]): boolean {
  const bar = bars[row.quality];
  const exact = rows.find(({ quality, ranks }) => quality === "exact" && ranks === row.ranks)!;
  if (row.ranks > 1 && row.patchError > errorRatioMax * exact.patchError) return false;
  return !bar || (row.ratio >= bar.ratio && Math.min(...row.psnr) >= bar.psnr);
}
