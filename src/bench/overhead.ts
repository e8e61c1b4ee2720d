/**
 * `bun run bench overhead [FOLDER]`: CPU seconds of a step outside the UNet (coefficients,
 * guidance, noise, the sampler's update, parsing and tokenizing prompts) against one UNet call of
 * SDXL's full size with random weights. The exit code is 1 when a sampler exceeds its limit.
 *
 * A step's cost is that of a small model's step less that of its UNet call, so that errors are
 * those of the small model's time.
 */
import { join } from "node:path";
import { openModelFolder } from "../models/folder.ts";
import type { Model } from "../models/model.ts";
import { nativeModelOf } from "../models/native-model.ts";
import { probeDevice } from "../native/device-info.ts";
import { ModelParts } from "../native/testing.ts";
import { defaultRules, PromptEncoder } from "../pipeline/prompts.ts";
import { Pipeline } from "../pipeline.ts";
import { choose } from "../prompt/dynamic.ts";
import { turnsOf } from "../prompt/turns.ts";
import { makeSchedule } from "../schedule.ts";
import { type Scheduler, schedulers } from "../settings/names.ts";
import { runPart } from "./cpu-models.ts";
import { fullSizeFolder, writeFullSize } from "./full-size.ts";

const sides = [512, 1024] as const;
const shareAllowed = 0.01;
const runCount = 3;
const promptCount = 300;
/** Over which what happens once per image is spread. */
const imageSteps = 20;
const usage = "Usage: bun run bench overhead [FOLDER]\n";

/** `args`: nothing, or a folder for the model (6.9 GB), which is written if it is missing. */
export async function run(args: string[]): Promise<number> {
  if (args.length > 1 || args[0]?.startsWith("-")) {
    process.stderr.write(usage);
    return 2;
  }
  const small = await openModelFolder(join(import.meta.dir, "../../tests/fixtures/golden/model"));
  const prompts = promptSeconds(small) / imageSteps;
  print(`${promptCount} prompts: ${milliseconds(prompts)} ms of CPU per step, mean`);
  const samplers = new Map<Scheduler, number[]>(schedulers.map((name) => [name, []]));
  await measureSamplers(small, sides[0], samplers);
  await measureSamplers(small, sides[1], costliest(samplers, 4));
  const folder = args[0] ?? fullSizeFolder;
  writeFullSize(folder);
  return report(samplers, await unetSeconds(folder), prompts);
}

// --- internal ---

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

function milliseconds(seconds: number): string {
  return (1e3 * seconds).toFixed(2);
}

async function cpuSeconds(work: () => unknown): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

/** The least of a few runs: other programs only add. */
async function leastSeconds(work: () => unknown): Promise<number> {
  const runs: number[] = [];
  for (let i = 0; i < runCount; i++) runs.push(await cpuSeconds(work));
  return Math.min(...runs);
}

/** Seconds of one repetition: of many less few, in which what happens once is left out. */
async function secondsOfEach(
  work: (count: number) => unknown,
  repetitions = (count: number) => count,
): Promise<number> {
  const [few, many] = [2, 8];
  const fewSeconds = await leastSeconds(() => work(few));
  const manySeconds = await leastSeconds(() => work(many));
  return (manySeconds - fewSeconds) / (repetitions(many) - repetitions(few));
}

/** Mean seconds of a prompt: choices by the seed, schedules, weights and tokens. */
function promptSeconds(model: Model): number {
  const words = [
    "a (red:1.3) house",
    "[green] tree",
    "{oil|water} colours",
    "__light__",
    "[a:b:0.4]",
  ];
  const linesOf = () => ["at dawn, (golden hour:1.2)", "under {soft|hard} light"];
  const rules = { ...defaultRules, promptSyntax: "a1111" as const };
  const encoder = new PromptEncoder(model, () => {}, { rules });
  const before = process.cpuUsage();
  for (let i = 0; i < promptCount; i++) {
    const parts = Array.from({ length: 40 }, (_, at) => words[(i * 7 + at * at) % words.length]);
    const text = choose(`image ${i}: ${parts.join(", ")}`, { seed: BigInt(i), linesOf });
    for (const turn of turnsOf(text, imageSteps)) encoder.prompt(turn.text);
  }
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6 / promptCount;
}

/** Adds to each sampler's list the seconds of an evaluation at `side` outside the UNet. */
async function measureSamplers(
  model: Model,
  side: number,
  samplers: ReadonlyMap<Scheduler, number[]>,
): Promise<void> {
  const unet = await smallUnetSeconds(model, side);
  const shape = { width: side, height: side, compat: "comfyui" as const, prompt: "a cat" };
  const pipeline = await Pipeline.open({
    model,
    devices: { device: "cpu", rankCount: 1 },
    first: shape,
  });
  try {
    for (const [name, list] of samplers) {
      const step = await secondsOfEach(
        (stepCount) => pipeline.generate({ ...shape, stepCount, scheduler: name, seeds: [1n] }),
        (stepCount) =>
          makeSchedule(name, model.scheduler, { stepCount, flavour: "kdiffusion" }).steps.length,
      );
      list.push(step - unet);
      print(`${side} ${name}: ${milliseconds(step - unet)} ms (small UNet ${milliseconds(unet)})`);
    }
  } finally {
    await pipeline.close();
  }
}

/**
 * Seconds of a call on both branches, less those of the smallest latent: what prompts alone decide
 * is computed once per image, but here in each call. So no step is charged too little.
 */
async function smallUnetSeconds(model: Model, side: number): Promise<number> {
  const parts = await ModelParts.open(nativeModelOf(model), {});
  const { inChannels, crossAttentionDim } = model.unet;
  const call = (latent: number) => () =>
    parts.noisePrediction({
      sample: new Float32Array(2 * inChannels * latent ** 2).fill(0.5),
      batch: 2,
      latentRows: latent,
      latentWidth: latent,
      timestep: 601,
      promptEmbeds: new Float32Array(2 * 77 * crossAttentionDim).fill(0.1),
      pooled: new Float32Array(2 * model.clip2.projectionSize).fill(0.1),
      timeIds: new Float32Array(12).fill(side),
    });
  try {
    const secondsAt = (pixels: number) =>
      secondsOfEach(async (count) => {
        const once = call(pixels / model.vaeFactor);
        for (let i = 0; i < count; i++) await once();
      });
    return (await secondsAt(side)) - (await secondsAt(model.sizeMultiple));
  } finally {
    await parts.close();
  }
}

/**
 * The `count` samplers with the largest seconds. Only these are measured at the larger side: there
 * a UNet call takes more per number of the latent, and what a step adds takes the same.
 */
function costliest(samplers: ReadonlyMap<Scheduler, number[]>, count: number) {
  const sorted = [...samplers].sort(([, a], [, b]) => b[0]! - a[0]!);
  return new Map(sorted.slice(0, count));
}

/** Seconds of one full-size call, batch 1, in the type that takes least. */
async function unetSeconds(folder: string): Promise<number[]> {
  const dtype = probeDevice().hasBf16 ? "bf16" : "f32";
  const model = nativeModelOf(await openModelFolder(folder));
  const parts = await ModelParts.open(model, { dtype });
  try {
    // Reads the file.
    await runPart(parts, "unet", 8);
    const all: number[] = [];
    for (const side of sides) {
      const seconds = await cpuSeconds(() => runPart(parts, "unet", side / 8));
      print(`UNet call of full size, ${side}x${side}, ${dtype}: ${seconds.toFixed(2)} s of CPU`);
      all.push(seconds);
    }
    return all;
  } finally {
    await parts.close();
  }
}

/** Prints every sampler's share of a UNet call, the worst last. */
function report(
  samplers: Map<Scheduler, number[]>,
  unet: readonly number[],
  prompts: number,
): number {
  const shareOf = (list: readonly number[]) =>
    list.map((seconds, i) => (Math.max(0, seconds) + prompts) / unet[i]!);
  const rows = [...samplers].map(([name, list]) => ({ name, list, shares: shareOf(list) }));
  rows.sort((a, b) => Math.max(...a.shares) - Math.max(...b.shares));
  print(
    `${"sampler".padEnd(18)}${sides.map((side) => `${side} ms`.padStart(12)).join("")}  shares`,
  );
  for (const { name, list, shares } of rows) {
    const cells = sides.map((_, i) => (i in list ? milliseconds(list[i]! + prompts) : "-"));
    const columns = cells.map((cell) => cell.padStart(12)).join("");
    const texts = shares.map((share) => `${(100 * share).toFixed(2)} %`).join(", ");
    print(`${name.padEnd(18)}${columns}  ${texts}`);
  }
  const { name = "", shares = [] } = rows.at(-1) ?? {};
  const worst = Math.max(...shares);
  print(`worst: ${name}, ${(100 * worst).toFixed(2)} % (limit ${100 * shareAllowed} %)`);
  return worst <= shareAllowed ? 0 : 1;
}
