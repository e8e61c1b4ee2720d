/**
 * Config files with random changes: each gives a config that fits together and makes a schedule,
 * or one sentence with the file's name. Nothing else is thrown, whatever stands in the file.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { BasedXLError } from "../../src/errors.ts";
import {
  parseClipConfig,
  parseSchedulerConfig,
  parseUnetConfig,
  parseVaeConfig,
} from "../../src/models/config.ts";
import { checkTogether } from "../../src/models/consistency.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { kindOf } from "../../src/models/kind.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import { makeSchedule, samplerOfModel } from "../../src/schedule.ts";
import { seed, seedName } from "../support/seed.ts";

// The cores may be busy.
setDefaultTimeout(60_000);

const golden = join(import.meta.dir, "../fixtures/golden/model");
const model = await openModelFolder(golden);
const readJson = (path: string) => JSON.parse(readFileSync(join(golden, path), "utf8"));

/** Goes on with a changed file as `openModelFolder` would. */
const components = {
  "unet/config.json": (json: unknown) => together({ unet: parseUnetConfig("FILE", json) }),
  "vae/config.json": (json: unknown) => together({ vae: parseVaeConfig("FILE", json) }),
  "text_encoder/config.json": (json: unknown) =>
    together({ clip: parseClipConfig("FILE", json, false) }),
  "text_encoder_2/config.json": (json: unknown) =>
    together({ clip2: parseClipConfig("FILE", json, true) }),
  "scheduler/scheduler_config.json": (json: unknown) => {
    const config = parseSchedulerConfig("FILE", json);
    const { name } = samplerOfModel(config);
    expect(makeSchedule(name, config, { stepCount: 2 }).steps).toHaveLength(2);
  },
} as const;

function together(changes: Partial<typeof model>): void {
  const changed = { ...model, ...changes };
  checkTogether({ unet: "FILE", tokenizer: "FILE", tokenizer2: "FILE" }, changed);
  expect(["base", "refiner", "inpainting"]).toContain(kindOf(changed));
  const { levelCount, downTransformerLayers, upTransformerLayers } =
    nativeModelOf(changed).config.unet;
  expect(downTransformerLayers).toHaveLength(Number(levelCount));
  expect(upTransformerLayers).toHaveLength(Number(levelCount));
}

/** Keys that the golden model's files leave out, beside those that they have. */
const moreKeys = [
  ...["reverse_transformer_layers_per_block", "mid_block_type", "num_attention_heads"],
  ...["text_config", "trained_betas", "thresholding", "lambda_min_clipped", "_use_default_values"],
  ...["set_alpha_to_one", "quantization_config", "latents_mean", "shift_factor"],
];

// A schedule of 2^24 training timesteps takes a second: 4096 stands for it.
const numbers = fc.constantFrom(0, -0, 1, 2, 3, 7, 8, 9, 16, 1.5, -1, 4096, 2 ** 24 + 1, 1e300);
const texts = fc.constantFrom("", "1", "silu", "DownBlock2D", "UNetMidBlock2D", "\u001b[2J\n");
const scalars = fc.oneof(numbers, numbers, texts, fc.boolean(), fc.constant(null), fc.constant({}));
const { value } = fc.letrec((tie) => ({
  value: fc.oneof({ depthSize: "small" }, scalars, fc.array(tie("value"), { maxLength: 9 })),
}));

test.each(Object.entries(components))(`%s, ${seedName}`, (path, goOn) => {
  const json: Record<string, unknown> = readJson(path);
  const key = fc.constantFrom(...Object.keys(json), ...moreKeys);
  const edits = fc.array(
    fc.record({ key, value, isEntry: fc.boolean(), index: fc.nat({ max: 4 }) }),
    { minLength: 1, maxLength: 3 },
  );
  let opened = 0;
  const property = fc.property(edits, (list) => {
    const changed = structuredClone(json);
    for (const { key, value, isEntry, index } of list) {
      const old = changed[key];
      if (isEntry && Array.isArray(old)) old[index] = value;
      else changed[key] = value;
    }
    // As a file holds it: 1e400 is read as infinity.
    const text = JSON.stringify(changed).replaceAll("1e+300", "1e400");
    try {
      goOn(JSON.parse(text));
      opened += 1;
    } catch (error) {
      if (!(error instanceof BasedXLError)) throw error;
      expect(["bad-model", "bad-option"]).toContain(error.code);
      expect(error.message).toMatch(/^[^\p{Cc}]{10,500}\.$/u);
    }
  });
  fc.assert(property, { numRuns: 2000, seed });
  expect(opened).toBeGreaterThan(0);
});
