/**
 * `bun run bench cudnn-plans`: asks the real cuDNN, without a GPU, how it would run every
 * convolution and attention of SDXL on five GPUs that tests/fixtures/gpus describes: whether one
 * fused kernel does it, and how many kernels the first image waits for while they are compiled.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { BasedXLError, badOption } from "../errors.ts";
import type { Model } from "../models/model.ts";
import type { Operation, PlannedOperation, RankPlan } from "../native/plan.ts";
import { repositoryRoot } from "../setup.ts";
import { planFor, splitCrossAttention, withModel } from "./gpu-work.ts";
import { Program } from "./programs.ts";
import { renderTable } from "./report.ts";

interface Size {
  width: number;
  height: number;
}

const sizes: readonly Size[] = [
  { width: 1024, height: 1024 },
  { width: 832, height: 1216 },
  { width: 2048, height: 2048 },
];
const rankCounts = [1, 2, 4, 8];

/** Of the VAE's residual convolutions; the value makes no difference, that it is not 1 does. */
const vaeScale = 1 / 64;

/** An operation as zig/bench/cudnn_plans.zig reads it. */
interface Question {
  operation: Operation;
  scale: number;
}

const answerSchema = v.object({
  how: v.picklist(["residual_first", "residual_last", "bare", "sdpa", ""]),
  engine: v.string(),
  plans: v.number(),
  compiled: v.number(),
  ms: v.number(),
});
export type Answer = v.InferOutput<typeof answerSchema>;

const firstSchema = v.union([v.object({ cudnn: v.number() }), v.object({ error: v.string() })]);

/** Names of the described GPUs, in the order of the answers. */
export const gpuNames: readonly string[] = readdirSync(descriptions())
  .map((file) => file.replace(".json", ""))
  .toSorted();

/** cuDNN's answers to `questions`, one for each GPU; or the sentence about what is missing. */
export async function askCudnn(
  questions: readonly Question[],
): Promise<{ version: number; answers: Answer[][] } | { missing: string }> {
  const program = await Program.native("cudnn-plans", [
    join(repositoryRoot, "zig-out/lib/stub-driver/libcuda.so.1"),
    ...gpuNames.map((name) => join(descriptions(), `${name}.json`)),
  ]);
  try {
    const first = v.parse(firstSchema, JSON.parse((await program.line()) ?? "null"));
    if ("error" in first) return { missing: first.error };
    const answers: Answer[][] = [];
    for (const question of questions) {
      const line = await program.ask(question);
      if (line === null) throw new BasedXLError("internal", "cudnn-plans ended unexpectedly.");
      answers.push(v.parse(v.array(answerSchema), JSON.parse(line)));
    }
    return { version: first.cudnn, answers };
  } finally {
    await program.close();
  }
}

/** Every convolution of SDXL's UNet and VAE in f16, of one rank and several, each once. */
export function convolutionsOf(model: Model): Question[] {
  return questionsOf(model, sizes, rankCounts, ({ op }) => op === "conv2d");
}

/** Those of one rank, and with the statistics of two, at 1024x1024. */
export function firstAttentionsOf(model: Model): Question[] {
  return questionsOf(model, sizes.slice(0, 1), [1, 2], isAsked);
}

/** Takes no arguments: the cases are fixed. */
export async function run(args: string[]): Promise<number> {
  if (args.length > 0) throw badOption(`bench cudnn-plans takes no flags, not ${args.join(" ")}.`);
  for (const listed of [convolutionsOf, attentionsOf]) {
    const questions = await withModel(undefined, async (model) => listed(model));
    const result = await askCudnn(questions);
    if ("missing" in result) throw new BasedXLError("no-device", result.missing);
    process.stdout.write(`${tableOf(result.version, result.answers)}\n`);
  }
  return 0;
}

export function isFused(how: Answer["how"]): boolean {
  return how !== "bare" && how !== "";
}

// --- internal ---

/** Every attention that cuDNN is asked for. Its kernels take a third of a second each. */
function attentionsOf(model: Model): Question[] {
  return questionsOf(model, sizes, rankCounts, isAsked);
}

/** As mayAskSdpa in zig/backend/cuda/ops_attention.zig. */
function isAsked({ op, causal, in: channels, heads }: Operation): boolean {
  const headSize = channels / heads;
  return op === "attention" && !causal && headSize % 8 === 0 && headSize <= 128;
}

function questionsOf(
  model: Model,
  sizes: readonly Size[],
  rankCounts: readonly number[],
  isWanted: (operation: Operation) => boolean,
): Question[] {
  const found = new Map<string, Question>();
  for (const size of sizes) {
    for (const rankCount of rankCounts) {
      const plan = planFor({ model, ...size, rankCount, splitBatch: false, dtype: "f16" });
      for (const { place, operation } of plan.passes[0]!.ranks.flatMap(separate)) {
        if (!isWanted(operation)) continue;
        const scale = place.stage === "decode" && operation.residual ? vaeScale : 1;
        const question = { operation, scale };
        found.set(JSON.stringify(question), question);
      }
    }
  }
  return [...found.values()];
}

/** Attentions that have a kernel with their queries on Hopper, without them: as elsewhere. */
function separate({ operations }: RankPlan): PlannedOperation[] {
  return operations.flatMap((entry) =>
    entry.operation.op === "cross_attention" ? splitCrossAttention(entry) : [entry],
  );
}

/** Counts for each GPU. */
function tableOf(version: number, answers: readonly Answer[][]): string {
  const rows = gpuNames.map((name, index) => {
    const own = answers.map((all) => all[index]!);
    const engines = new Set(own.map(({ engine }) => engine.split(" ")[1] ?? "none"));
    return [
      name,
      String(own.length),
      String(own.filter(({ how }) => isFused(how)).length),
      String(own.filter(({ how }) => how === "residual_first").length),
      String(own.reduce((sum, { plans }) => sum + plans, 0)),
      String(own.reduce((sum, { compiled }) => sum + compiled, 0)),
      [...engines].toSorted((a, b) => Number(a) - Number(b)).join(", "),
    ];
  });
  const heads = ["GPU", "problems", "fused", "residual first", "plans", "compiled", "engines"];
  return `cuDNN ${version}, asked without a GPU; nothing was run.\n\n${renderTable(heads, rows)}`;
}

function descriptions(): string {
  return join(repositoryRoot, "tests/fixtures/gpus");
}
