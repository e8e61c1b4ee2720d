/**
 * The safetensors files of one component of a model: the plain file, its shards, or the .fp16
 * variant, the first of them whose files are all there and no pointers. Only looks at names and
 * first bytes; the native library checks the tensors.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { BasedXLError } from "../errors.ts";
import { ConfigReader, show, word } from "./config-reader.ts";
import { isPresent, sentenceOf, weightsProblem } from "./files.ts";
import { readJsonFile } from "./json.ts";

/** File names without endings: diffusers' components and transformers' are named differently. */
export type WeightStem = "diffusion_pytorch_model" | "model";

/**
 * The absolute paths of the weight files in `folder`. Throws "bad-weights" with what is wrong with
 * the first candidate, or naming what was looked for.
 */
export async function findWeightFiles(folder: string, stem: WeightStem): Promise<string[]> {
  const looked: string[] = [];
  let firstProblem: unknown = null;
  for (const name of candidates(stem)) {
    looked.push(name);
    if (!isPresent(join(folder, name))) continue;
    try {
      if (name.endsWith(".json")) return await shardFiles(folder, name);
      return [checked(join(folder, name))];
    } catch (error) {
      firstProblem ??= error;
    }
  }
  if (firstProblem !== null) throw firstProblem;
  throw new BasedXLError("bad-weights", missingSentence(folder, looked));
}

// --- internal ---

/** diffusers puts the variant before "index" in newer versions and after it in older ones. */
function candidates(stem: WeightStem): string[] {
  return [
    `${stem}.safetensors`,
    `${stem}.safetensors.index.json`,
    `${stem}.fp16.safetensors`,
    `${stem}.safetensors.index.fp16.json`,
    `${stem}.fp16.safetensors.index.json`,
  ];
}

/** `path`, unless its first bytes show that it holds no weights. */
function checked(path: string): string {
  const problem = weightsProblem(path);
  if (problem === null) return path;
  throw new BasedXLError("bad-weights", `${path} ${sentenceOf(problem)}`);
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
    if (isPresent(join(folder, name))) continue;
    throw new BasedXLError(
      "bad-weights",
      `${path} names the shard ${word(name)}, but it is not in the folder; download it again.`,
    );
  }
  return names.map((name) => checked(join(folder, name)));
}

function missingSentence(folder: string, looked: string[]): string {
  if (!existsSync(folder)) return `The model's folder ${folder} does not exist.`;
  const [pickle] = readdirSync(folder).filter((name) => /\.(bin|ckpt|pt|pth)$/.test(name));
  if (pickle !== undefined) {
    return (
      `${folder} has only pickled weights (${word(pickle)}), which are not read because they can ` +
      "run code; save the model with safe_serialization=True to get .safetensors files."
    );
  }
  return `${folder} has no weights; looked for ${looked.join(", ")}.`;
}
