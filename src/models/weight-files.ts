/**
 * Which safetensors files hold one part of a model: the plain file, its shards, or the .fp16
 * variant, in this order. Only looks at names; the native library checks what is in them.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { BasedXLError } from "../errors.ts";
import { ConfigReader, show, word } from "./config-reader.ts";
import { readJsonFile } from "./json.ts";

/** File names without endings: diffusers' parts and transformers' parts are named differently. */
export type WeightStem = "diffusion_pytorch_model" | "model";

/**
 * The absolute paths of the weight files in `folder`. Throws "bad-weights" naming what was looked
 * for.
 */
export async function findWeightFiles(folder: string, stem: WeightStem): Promise<string[]> {
  const looked: string[] = [];
  for (const variant of ["", ".fp16"]) {
    const whole = `${stem}${variant}.safetensors`;
    if (existsSync(join(folder, whole))) return [join(folder, whole)];
    looked.push(whole);
    for (const index of indexNames(stem, variant)) {
      if (existsSync(join(folder, index))) return await shardFiles(folder, index);
      if (!looked.includes(index)) looked.push(index);
    }
  }
  throw new BasedXLError("bad-weights", missingSentence(folder, looked));
}

// --- internal ---

/** diffusers puts the variant before "index" in newer versions and after it in older ones. */
function indexNames(stem: WeightStem, variant: string): string[] {
  if (!variant) return [`${stem}.safetensors.index.json`];
  return [`${stem}.safetensors.index${variant}.json`, `${stem}${variant}.safetensors.index.json`];
}

async function shardFiles(folder: string, indexName: string): Promise<string[]> {
  const path = join(folder, indexName);
  const index = new ConfigReader(path, await readJsonFile(path));
  const map = index.weightMap();
  const names = [...new Set(Object.values(map))].sort();
  if (names.length === 0) index.fail("weight_map is empty");
  for (const name of names) {
    // A shard lies beside its index: a path out of the folder is no shard of this model.
    if (name.includes("/") || name.includes("\\") || !name.endsWith(".safetensors")) {
      index.fail(`weight_map names ${show(name)}, which is no safetensors file in the same folder`);
    }
    if (existsSync(join(folder, name))) continue;
    throw new BasedXLError(
      "bad-weights",
      `${path} names the shard ${word(name)}, but it is not in the folder; download it again.`,
    );
  }
  return names.map((name) => join(folder, name));
}

function missingSentence(folder: string, looked: string[]): string {
  if (!existsSync(folder)) return `The model's folder ${folder} does not exist.`;
  const pickles = readdirSync(folder).filter((name) => /\.(bin|ckpt|pt|pth)$/.test(name));
  if (pickles.length > 0) {
    return (
      `${folder} has only pickled weights (${word(pickles[0]!)}), which are not read because ` +
      "they can run code; save the model with safe_serialization=True to get .safetensors files."
    );
  }
  return `${folder} has no weights; looked for ${looked.join(", ")}.`;
}
