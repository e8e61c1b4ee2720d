/**
 * Jobs in a row whose sizes, modes, guidance, steps and LoRAs change from each to the next, and the
 * server's memory after each.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { preparePipeline } from "../../pipeline.ts";
import { writeRandomLora } from "./random-lora.ts";
import type { ServeProcess } from "./serve-process.ts";

/** Writes the LoRAs of the jobs, for the flag `--models-dir` of the server. */
export async function writeSoakLoras(modelsFolder: string): Promise<void> {
  const { model } = await preparePipeline({ devices: { device: "cpu" } });
  const folder = join(modelsFolder, "loras");
  mkdirSync(folder, { recursive: true });
  for (const [name, chosen] of loras) {
    writeRandomLora(join(folder, `${name}.safetensors`), model, chosen);
  }
}

/** Resident bytes after each job. Throws where one is not done. */
export async function soak(server: ServeProcess, jobCount: number): Promise<number[]> {
  const samples: number[] = [];
  for (let number = 0; number < jobCount; number++) {
    const { id } = await server.submit(soakRequest(number));
    const { state } = await server.ended(id);
    if (state !== "done") throw new Error(`job ${number} is ${state}`);
    samples.push(await server.memory());
  }
  return samples;
}

// --- internal ---

const loras = [
  ["ink", /attn1/],
  ["chalk", /attn2|conv1$/],
] as const;
/** One more than a session keeps merged. */
const sets = [[], ["ink:0.5"], ["chalk:0.5"], ["ink:0.5", "chalk:0.5"], ["ink:0.3"], ["chalk:0.2"]];
/** The largest comes first, and the first six jobs have all modes and sets. */
const sizes = [320, 256, 192, 128];
const modes = ["corrected_async_gn", "full_sync", "stale_gn", "no_sync"];

function soakRequest(number: number) {
  return {
    width: sizes[number % 4],
    height: sizes[(number >> 2) % 4],
    sync_mode: modes[(number + (number >> 2)) % 4],
    guidance_scale: number % 3 === 0 ? 4 : 1,
    num_inference_steps: 2 + (number % 3),
    lora: sets[number % sets.length],
    seed: number,
  };
}
