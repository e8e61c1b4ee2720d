/**
 * The requests of the soak: sizes, modes, samplers, guidance, reuse and LoRAs change from each to
 * the next, by numbers that are the same in every run.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { preparePipeline } from "../../pipeline.ts";
import { qualities, schedulers, syncModes } from "../../settings/names.ts";
import type { RequestSettings } from "../../settings/table.ts";
import { seedOf, uniform } from "./formula-weights.ts";
import { writeRandomLora } from "./random-lora.ts";

/** Ranks of the pipelines. */
export const soakRankCounts = [1, 2, 3, 4] as const;

/** The folder of models with the LoRAs of the requests. */
export async function writeSoakLoras(modelsFolder: string): Promise<void> {
  const { model } = await preparePipeline({ devices: { device: "cpu" } });
  const folder = join(modelsFolder, "loras");
  mkdirSync(folder, { recursive: true });
  // Both change the same weights: what sessions keep merged is then as large with any of the sets.
  for (const name of ["ink", "chalk"]) {
    writeRandomLora(join(folder, `${name}.safetensors`), model, /attn2|conv1$/);
  }
}

export function soakRequest(number: number): RequestSettings {
  const values = uniform(seedOf(`soak ${number}`), 8);
  let drawn = 0;
  const oneOf = <Item>(items: readonly Item[]) => {
    return items[Math.floor(((values[drawn++]! + 1) / 2) * items.length)]!;
  };
  const others = {
    syncMode: oneOf(syncModes),
    scheduler: oneOf(schedulers),
    stepCount: oneOf([2, 3, 4]),
    quality: oneOf(qualities),
    loras: oneOf(loraSets),
    seed: BigInt(number),
  };
  // The first ones need the most memory of all, whatever they are asked for otherwise.
  if (number < soakRankCounts.length) return { ...others, ...largest };
  return { ...others, width: oneOf(sides), height: oneOf(sides), guidanceScale: oneOf([1, 4]) };
}

// --- internal ---

const sides = [320, 256, 192, 128];
const largest = { width: 320, height: 320, guidanceScale: 4 };

/** One more than a session keeps merged, and none. */
const loraSets: RequestSettings["loras"][] = [
  undefined,
  [{ file: "ink", scale: 0.5 }],
  [{ file: "chalk", scale: 0.5 }],
  [
    { file: "ink", scale: 0.5 },
    { file: "chalk", scale: 0.5 },
  ],
  [{ file: "ink", scale: 0.3 }],
  [{ file: "chalk", scale: 0.2 }],
];
