/**
 * What is said of a request's LoRAs: lines for people, and objects for programs.
 */
import { autoV3Of } from "./hash.ts";
import { describeLora, type PlannedLora, targetsOf } from "./plan.ts";

/** A LoRA of a request, for output in JSON. */
export interface LoraReport {
  name: string;
  path: string;
  scale: number;
  text_scale: number;
  /** How many weights of the model it changes. */
  weights: number;
  /** AutoV3. */
  hash: string;
}

/** A line for each: its scales, and what it changes. */
export function loraLines(loras: readonly PlannedLora[]): string[] {
  return loras.map((lora) => `LoRA ${describeLora(lora)}.`);
}

/** Reads every file for its hash. */
export async function reportLoras(loras: readonly PlannedLora[]): Promise<LoraReport[]> {
  return await Promise.all(
    loras.map(async (lora) => ({
      name: lora.name,
      path: lora.path,
      scale: lora.scale,
      text_scale: lora.textScale,
      weights: targetsOf(lora).length,
      hash: await autoV3Of(lora.file.header),
    })),
  );
}
