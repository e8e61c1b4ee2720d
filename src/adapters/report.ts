/**
 * What is said of a request's LoRAs: lines for people, and objects for programs.
 */
import { adapterHash, HashCache } from "../library/hashes.ts";
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

/** Reads the files for their hashes, but those whose hash from this byte on is `known`. */
export async function reportLoras(
  loras: readonly PlannedLora[],
  known: (path: string, start: number) => string | null = () => null,
): Promise<LoraReport[]> {
  const cache = new HashCache(null);
  const hashOf = async ({ path, file }: PlannedLora) => {
    const start = 8 + file.header.headerBytes;
    return adapterHash(known(path, start) ?? (await cache.hashOf(path, { start })));
  };
  return await Promise.all(
    loras.map(async (lora) => ({
      name: lora.name,
      path: lora.path,
      scale: lora.scale,
      text_scale: lora.textScale,
      weights: targetsOf(lora).length,
      hash: await hashOf(lora),
    })),
  );
}
