/**
 * basedxl.json: the defaults of a model's folder for what the command line leaves out. All keys are
 * optional; an unknown key is refused, because a misspelt default would be silently without effect.
 */
import { join } from "node:path";
import * as v from "valibot";
import { ConfigReader, finiteNumber, positiveInteger, text, word } from "./config-reader.ts";
import { isPresent } from "./files.ts";
import { readJsonFile } from "./json.ts";

export interface ModelDefaults {
  prompt?: string;
  /** Pixels. */
  width?: number;
  height?: number;
  steps?: number;
  guidanceScale?: number;
}

/** Reads `folder`/basedxl.json, {} when there is none. Throws "bad-model" with the key. */
export async function readDefaults(folder: string, sizeMultiple: number): Promise<ModelDefaults> {
  const path = join(folder, "basedxl.json");
  if (!isPresent(path)) return {};
  const json = await readJsonFile(path);
  const reader = new ConfigReader(path, json);
  const unknown = Object.keys(json as object).find((key) => !keys.includes(key));
  if (unknown !== undefined)
    reader.fail(`${word(unknown)} is no key of this file; ${keys.join(", ")} are`);
  const size = v.pipe(
    positiveInteger,
    v.multipleOf(sizeMultiple, `it must be a multiple of ${sizeMultiple}`),
  );
  const steps = v.pipe(positiveInteger, v.maxValue(1000, "it must be at most 1000"));
  const guidance = v.pipe(finiteNumber, v.minValue(0, "it must be 0 or more"));
  return {
    prompt: reader.optional("prompt", text, undefined),
    width: reader.optional("width", size, undefined),
    height: reader.optional("height", size, undefined),
    steps: reader.optional("steps", steps, undefined),
    guidanceScale: reader.optional("guidanceScale", guidance, undefined),
  };
}

// --- internal ---

const keys = ["prompt", "width", "height", "steps", "guidanceScale"];
