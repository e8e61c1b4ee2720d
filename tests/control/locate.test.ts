/**
 * Which model folder a run uses, and what is said to names that are no folder.
 */
import { describe, expect, test } from "bun:test";
import { homedir } from "node:os";
import { join } from "node:path";
import { resolveModelPath } from "../../src/models/locate.ts";
import { resources } from "../../src/resources.ts";
import { refusal } from "../support/refusal.ts";

const golden = join(import.meta.dir, "../fixtures/golden/model");
const wide = join(import.meta.dir, "../fixtures/wide/model");

describe("which model", () => {
  test("the option, else the variable, else the bundled one", () => {
    const env = { BASEDXL_MODEL: wide };
    expect(resolveModelPath(golden, env)).toEqual({ path: golden, bundled: false });
    expect(resolveModelPath(undefined, env)).toEqual({ path: wide, bundled: false });
    const path = resources.bundledModel();
    expect(resolveModelPath(undefined, {})).toEqual({ path, bundled: true });
    const empty = { BASEDXL_MODEL: "" };
    expect(resolveModelPath(undefined, empty)).toEqual({ path, bundled: true });
    expect(resolveModelPath("~", {})).toEqual({ path: homedir(), bundled: false });
  });

  for (const [value, sentence] of [
    [
      "stabilityai/sdxl-turbo",
      /model of the Hugging Face hub.*hf download stabilityai\/sdxl-turbo/,
    ],
    ["./models/sdxl", /^--model \.\/models\/sdxl does not exist\. Get a diffusers folder with/],
    ["none", /^--model none does not exist/],
    [
      "models/a.safetensors",
      /single \.safetensors file, which is not supported yet.*from_single_file/,
    ],
    ["a.ckpt", /single \.ckpt file/],
    ["a.GGUF", /single \.GGUF file/],
    ["", /^--model is empty/],
    [join(golden, "model_index.json"), /is a file, not a diffusers folder/],
    [join(golden, "model_index.json", "x"), /cannot be opened \(ENOTDIR.*Get a diffusers folder/],
    ["x".repeat(5000), /cannot be opened \(ENAMETOOLONG/],
  ] as const) {
    test(`${value.slice(0, 80) || '""'} is refused`, async () => {
      expect(await refusal(() => resolveModelPath(value, {}), "bad-model")).toMatch(sentence);
    });
  }

  test("a bad variable is named as the variable", async () => {
    const message = await refusal(
      () => resolveModelPath(undefined, { BASEDXL_MODEL: "/none" }),
      "bad-model",
    );
    expect(message).toStartWith("BASEDXL_MODEL /none does not exist.");
  });
});
