/**
 * `bun run bench bands`: what makes patches adapt, each against its bar on the bundled model.
 * `exchange`: bytes and error of compressed keys and values; `balance`: the step of unequal ranks
 * with rows dealt by speed; `warmup`: synchronous steps until the model's output comes to rest.
 */
import type { ArgsDef } from "citty";
import { type HelpText, renderHelp } from "../terminal/help.ts";
import { measureBalance } from "./bands/balance.ts";
import { measureExchange } from "./bands/exchange.ts";
import { measureWarmup } from "./bands/warmup.ts";
import { namesOf, readFlags, sharedFlags, wholeOf } from "./flags.ts";
import { readGeneration } from "./generation.ts";
import { miniPrompts } from "./support/mini-prompts.ts";

const parts = {
  exchange: measureExchange,
  balance: measureBalance,
  warmup: measureWarmup,
} as const;
const partNames = Object.keys(parts) as (keyof typeof parts)[];
const promptCountDefault = 40;

const flagTexts = {
  parts: {
    type: "string",
    valueHint: "LIST",
    description: `Of ${partNames.join(", ")}. Default: all.`,
  },
  prompts: {
    type: "string",
    valueHint: "N",
    description: `Images of each kind. Default: ${promptCountDefault}.`,
  },
  model: sharedFlags.model,
  size: sharedFlags.size,
  steps: sharedFlags.steps,
  help: sharedFlags.help,
} as const satisfies ArgsDef;

const help: HelpText = {
  usage: "bun run bench bands [flags]",
  summary:
    "Measures compressed exchange, rows by speed and automatic warm-up on four patches, with bars.",
  examples: ["bun run bench bands", "bun run bench bands --parts exchange --prompts 8"],
  groups: [
    ["What", ["parts", "prompts"]],
    ["Images", ["model", "size", "steps"]],
    ["Output", ["help"]],
  ],
  notes: [],
};

export async function run(args: string[]): Promise<number> {
  const flags = readFlags(args, flagTexts);
  if (flags.help) {
    process.stdout.write(renderHelp(help, flagTexts));
    return 0;
  }
  const count = wholeOf(flags, "prompts", { min: 1, max: 1000 }) ?? promptCountDefault;
  const generation = await readGeneration(flags);
  const cases = miniPrompts(count).map((prompt, i) => ({ prompt, seed: BigInt(100 + i) }));
  let isWithin = true;
  for (const part of namesOf(flags, "parts", partNames) ?? partNames) {
    const { text, isWithin: isPartWithin } = await parts[part](generation, cases);
    process.stdout.write(`${text}\n`);
    isWithin &&= isPartWithin;
  }
  return isWithin ? 0 : 1;
}
