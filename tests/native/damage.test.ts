/**
 * Random damage to a model folder: for any bytes, opening it succeeds or is refused in a
 * sentence. A crash of the library would end this process, and with it the tests.
 */
import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { BasedXLError } from "../../src/errors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { openSession } from "../../src/pipeline/session.ts";
import { copyModelBytes, removeCopies } from "../support/model-copy.ts";

const textWeights = "text_encoder/model.safetensors";
const folder = copyModelBytes(textWeights, (bytes) => bytes);
const originals = new Map<string, Buffer>();
afterAll(removeCopies);
beforeEach(() => {
  for (const [file, bytes] of originals) writeFileSync(join(folder, file), bytes);
});

/** Enough to meet every branch many times, and a few seconds on a slow machine. */
const numRuns = 150;

function original(file: string): Buffer {
  const bytes = originals.get(file) ?? readFileSync(join(folder, file));
  originals.set(file, bytes);
  return bytes;
}

/** Opens the folder with `bytes` in place of `file`; "" when it opens, else the refusal's code. */
async function opened(file: string, bytes: Uint8Array | string): Promise<string> {
  original(file);
  writeFileSync(join(folder, file), bytes);
  try {
    const model = await openModelFolder(folder);
    const size = { width: model.sizeMultiple, height: model.sizeMultiple };
    const one = {
      rankCount: 1,
      threadCount: 1,
      guidance: false,
      splitBatch: true,
      imageCount: 1,
    };
    (await openSession({ model, ...one, ...size })).close();
    return "";
  } catch (error) {
    if (!(error instanceof BasedXLError)) throw error;
    expect(error.message).toMatch(/^[^\p{Cc}]+[.?]$/u);
    return error.code;
  }
}

describe("a damaged folder opens or is refused in a sentence:", () => {
  test("bytes of a weights file, and its length", async () => {
    const whole = original(textWeights);
    const headerEnd = 8 + Number(whole.readBigUInt64LE(0));
    const damage = fc.record({
      length: fc.oneof(fc.constant(whole.length), fc.nat(whole.length)),
      edits: fc.array(fc.tuple(fc.nat(headerEnd - 1), fc.nat(255)), { maxLength: 6 }),
    });
    const check = async ({ length, edits }: { length: number; edits: [number, number][] }) => {
      const bytes = Buffer.from(whole.subarray(0, length));
      for (const [at, value] of edits) if (at < length) bytes[at] = value;
      expect(["", "bad-weights"]).toContain(await opened(textWeights, bytes));
    };
    await fc.assert(fc.asyncProperty(damage, check), { numRuns });
  });

  const numbers = [-1, -0, 0, 0.5, 1, 2, 3, 8, 1000, 2 ** 24, 2 ** 32, 2 ** 53, 1e-300, 1e300];
  const value = fc.oneof(
    fc.constantFrom(...numbers),
    fc.array(fc.constantFrom(...numbers), { maxLength: 9 }),
    fc.jsonValue(),
  );

  for (const file of [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder_2/config.json",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "unet/config.json",
    "vae/config.json",
  ]) {
    test(`values of ${file}`, async () => {
      const json = JSON.parse(original(file).toString());
      const changes = fc.dictionary(fc.constantFrom(...Object.keys(json)), value, {
        minKeys: 1,
        maxKeys: 2,
      });
      const check = async (changed: Record<string, unknown>) => {
        const bytes = JSON.stringify({ ...json, ...changed });
        const codes = ["", "bad-model", "bad-weights", "bad-option", "no-memory"];
        expect(codes).toContain(await opened(file, bytes));
      };
      await fc.assert(fc.asyncProperty(changes, check), { numRuns });
    });
  }

  for (const file of ["tokenizer/vocab.json", "tokenizer/merges.txt"]) {
    test(`bytes of ${file}`, async () => {
      const whole = original(file);
      const edits = fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 4 });
      const check = async (list: [number, number][]) => {
        const bytes = Buffer.from(whole);
        for (const [at, byte] of list) bytes[at] = byte;
        expect(["", "bad-model"]).toContain(await opened(file, bytes));
      };
      await fc.assert(fc.asyncProperty(edits, check), { numRuns: numRuns / 3 });
    });
  }
});
