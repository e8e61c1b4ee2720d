/**
 * The table of settings: complete rows, and that flags, requests and their sentences follow from
 * them for any value.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import * as v from "valibot";
import { BasedXLError } from "../../src/errors.ts";
import { isRecorded } from "../../src/metadata/record.ts";
import { controlPreprocessItem, controlTypeItem } from "../../src/settings/control.ts";
import { embeddingItem } from "../../src/settings/embedding.ts";
import { folderItem } from "../../src/settings/folder.ts";
import { fileItem, fractionItem, scaleItem } from "../../src/settings/list-items.ts";
import { syncModes, syncModeTexts } from "../../src/settings/names.ts";
import { fieldKeys, requestSchema } from "../../src/settings/request-schema.ts";
import { sampleFlags, sampleHelp, sampleValues } from "../../src/settings/sample-flags.ts";
import { groups, type NumberList, type Setting, seedMax } from "../../src/settings/setting.ts";
import { controlSettings } from "../../src/settings/table/control.ts";
import { gpuSettings } from "../../src/settings/table/gpus.ts";
import { hiresSettings } from "../../src/settings/table/hires.ts";
import { imageSettings } from "../../src/settings/table/image.ts";
import { inputSettings } from "../../src/settings/table/input.ts";
import { ipAdapterSettings } from "../../src/settings/table/ip-adapter.ts";
import { modelSettings } from "../../src/settings/table/model.ts";
import { outputSettings } from "../../src/settings/table/output.ts";
import { rankSettings } from "../../src/settings/table/ranks.ts";
import { refinerSettings } from "../../src/settings/table/refiner.ts";
import { reuseSettings } from "../../src/settings/table/reuse.ts";
import { samplingSettings } from "../../src/settings/table/sampling.ts";
import { seedSettings } from "../../src/settings/table/seeds.ts";
import { sizeSettings } from "../../src/settings/table/size.ts";
import {
  requestKeys,
  type SettingKey,
  settingKeys,
  settingOf,
  settings,
} from "../../src/settings/table.ts";
import {
  asField,
  asFlag,
  asProperty,
  checkSetting,
  formatSetting,
  parseSetting,
} from "../../src/settings/values.ts";
import { readSources } from "../support/sources.ts";

/** In the order of `--help`. */
const tables = [
  ...[imageSettings, inputSettings, controlSettings, ipAdapterSettings],
  ...[seedSettings, sizeSettings, samplingSettings],
  ...[refinerSettings, hiresSettings, reuseSettings],
  ...[modelSettings, gpuSettings, rankSettings, outputSettings],
];

/** Any value that a setting accepts. */
function valid(setting: Setting): fc.Arbitrary<unknown> {
  switch (setting.kind) {
    case "whole":
      return fc.integer({ min: setting.min, max: setting.max });
    case "number":
      return fc.double({ min: setting.min, max: setting.max, noNaN: true }).map((x) => x + 0);
    case "choice":
      return setting.orNumbers
        ? fc.oneof(fc.constantFrom(...setting.names), validNumbers(setting.orNumbers))
        : fc.constantFrom(...setting.names);
    case "numbers":
      return validNumbers(setting);
    case "seed":
      return fc.bigInt({ min: 0n, max: seedMax });
    case "boolean":
      return fc.boolean();
    case "text":
      return fc.string({ unit: "binary" });
    case "path":
      return fc.string({ minLength: 1 }).map((path) => path + (setting.extension ?? ""));
    case "list":
      return fc.array<unknown>(validItems.get(setting.of) ?? validLora, {
        minLength: 1,
        maxLength: setting.max,
      });
  }
}

function validNumbers({ whole, min, max, countMin }: NumberList): fc.Arbitrary<number[]> {
  const one = whole ? fc.integer({ min, max }) : fc.double({ min, max, noNaN: true });
  const list = fc.uniqueArray(
    one.map((x) => x + 0),
    { minLength: countMin, maxLength: 40 },
  );
  return list.map((numbers) => numbers.sort((a, b) => b - a));
}

const validFolder = fc.stringMatching(/^[a-z/][a-z :.]{0,20}[a-z]$/);
const loraScale = fc.double({ min: -100, max: 100, noNaN: true }).map((x) => x + 0);
const validFile = fc.stringMatching(/^[a-z][a-z :.]{0,20}[a-z]$/);
const validEmbedding = fc.record(
  { file: validFile, name: fc.stringMatching(/^[a-z][a-z :.-]{0,20}[a-z]$/) },
  { requiredKeys: ["file"] },
);
const validLora = fc.record({
  file: validFile,
  scale: loraScale,
  textScale: loraScale,
});

/** By the kind of the entries. */
const validItems = new Map<unknown, fc.Arbitrary<unknown>>([
  [embeddingItem, validEmbedding],
  [folderItem, validFolder],
  [fileItem, validFolder],
  [scaleItem, fc.integer({ min: 0, max: 1000 }).map((hundredths) => hundredths / 100)],
  [fractionItem, fc.integer({ min: 0, max: 100 }).map((hundredths) => hundredths / 100)],
  [controlTypeItem, fc.integer({ min: 0, max: 15 })],
  [controlPreprocessItem, fc.constantFrom("none", "canny", "grey", "blur", "tile")],
]);

/** Texts that a setting of a kind refuses; null where it takes any. */
function invalidText(setting: Setting): fc.Arbitrary<string> | null {
  const words = fc.constantFrom("", "ten", "NaN", "Infinity", "0x10", "1e999", "--", "1,5", "∞");
  switch (setting.kind) {
    case "whole":
      return fc.oneof(
        words,
        fc.integer({ max: setting.min - 1 }).map(String),
        fc.integer({ min: setting.max + 1 }).map(String),
        fc.double({ noInteger: true, noNaN: true, noDefaultInfinity: true }).map(String),
      );
    case "number":
      return fc.oneof(words, fc.double({ min: setting.max + 1e-6, noNaN: true }).map(String));
    case "seed":
      return fc.oneof(words, fc.bigInt({ min: seedMax + 1n }).map(String));
    case "choice":
      return fc.oneof(
        fc.string().filter((text) => !setting.names.includes(text)),
        fc.constantFrom("1,2", "3,2,2", "3,", "-1,-2", "1;0", "5,NaN"),
      );
    case "numbers":
      return fc.constantFrom("", "1,2", "2,2", "3,", "1.5", "-1", "1000", "karras");
    case "list":
      if (setting.of === embeddingItem) return fc.constantFrom("", "  ", "  =sad");
      if (setting.of === folderItem || setting.of === fileItem) return fc.constantFrom("", " ");
      return fc.constantFrom("", ":0.5", "x:100.5", "x:1:-1e3", "x:1e999", " :1:1");
    case "path":
      return setting.extension === undefined ? null : fc.string().map((text) => `${text}.pt`);
    default:
      return null;
  }
}

function sentence(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof BasedXLError && error.code === "bad-option") return error.message;
    throw error;
  }
  throw new Error("nothing was refused");
}

describe("the table", () => {
  test("--json reports every setting that images depend on", () => {
    const hidden = settingKeys.filter((key) => isRecorded(key) && settingOf(key).json === null);
    // Each image has its own.
    expect(hidden).toEqual(["seed"]);
  });

  test.each(settingKeys)("%s has help, a group, and one decision about processes", (key) => {
    const setting = settingOf(key);
    expect(setting.help.split("\n")[0]).toEndWith(".");
    expect(groups).toContain(setting.group);
    expect(["same", "own"]).toContain(setting.processes);
    expect(["request", "pipeline", "command"]).toContain(setting.scope);
    // What decides on the pixels of an image must be the same everywhere.
    if (setting.scope === "request") expect(setting.processes).toBe("same");
    if (setting.scope === "command") expect(setting.processes).toBe("own");
  });

  test("every flag and alias is there once, and is completed and shown", () => {
    const names = settingKeys
      .map(settingOf)
      .flatMap(({ flag, aliases = [] }) => [flag, ...aliases]);
    expect(new Set(names).size).toBe(names.length);
    expect(Object.keys(sampleFlags)).toEqual([
      "promptText",
      ...settingKeys.map((key) => settings[key].flag),
      "help",
    ]);
    const shown = sampleHelp.groups.flatMap(([, flags]) => flags);
    expect([...shown].sort()).toEqual(Object.keys(sampleFlags).sort());
    expect(sampleValues["sync-mode"]).toEqual(syncModes);
    expect(sampleValues.transport).toEqual(["auto", "peer", "nccl"]);
    expect(sampleValues.model).toEqual({ models: "checkpoint" });
    expect(sampleValues["models-dir"]).toBe("folder");
  });

  test("a key is there once, in the file of its group", () => {
    const groupsOfFiles = tables.map((rows) => [
      ...new Set(Object.values<Setting>(rows).map(({ group }) => group)),
    ]);
    expect(groupsOfFiles).toEqual(groups.map((group) => [group]));
    expect(settingKeys).toEqual(tables.flatMap((rows) => Object.keys(rows) as SettingKey[]));
  });

  test("keys of --json are there once", () => {
    const keys = settingKeys.map((key) => settings[key].json).filter((json) => json !== null);
    expect(new Set(keys).size).toBe(keys.length);
  });

  test("every sync mode has its line", () => {
    expect(Object.keys(syncModeTexts).sort()).toEqual([...syncModes].sort());
  });

  test("defaults are values of their settings", () => {
    for (const key of settingKeys) {
      const setting = settingOf(key);
      if ("default" in setting) expect(checkSetting(key, setting.default)).toBe(setting.default!);
    }
  });
});

describe("values", () => {
  test.each(settingKeys)("%s: any value survives a flag, and is accepted as it is", (key) => {
    fc.assert(
      fc.property(valid(settingOf(key)) as fc.Arbitrary<never>, (value) => {
        expect(parseSetting(key, formatSetting(key, value))).toEqual(value);
        expect(checkSetting(key, value)).toBe(value);
      }),
    );
  });

  const refusing = settingKeys.filter((key) => invalidText(settingOf(key)) !== null);
  test.each(refusing)("%s: any other text gets one sentence that names the flag", (key) => {
    fc.assert(
      fc.property(invalidText(settingOf(key))!, (text) => {
        const message = sentence(() => parseSetting(key, text));
        expect(message).toStartWith(`${asFlag(key)} must `);
        expect(message).toContain(`, not ${JSON.stringify(text)}.`);
      }),
    );
  });

  test("the same sentence by the name that the caller uses", () => {
    const range = "must be a whole number from 1 to 1000, not";
    const by = (naming: (key: SettingKey) => string) =>
      sentence(() => checkSetting("stepCount", 0.5, naming));
    expect(by(asFlag)).toBe(`--num-inference-steps (--steps) ${range} 0.5.`);
    expect(by(asField)).toBe(`num_inference_steps ${range} 0.5.`);
    expect(by(asProperty)).toBe(`stepCount ${range} 0.5.`);
    expect(sentence(() => checkSetting("stepCount", "20"))).toBe(`stepCount ${range} "20".`);
    expect(sentence(() => checkSetting("stepCount", undefined))).toBe(
      `stepCount ${range} undefined.`,
    );
    expect(sentence(() => checkSetting("rng", "cpuu"))).toBe(
      'rng must be cpu or cuda, not "cpuu". Did you mean cpu?',
    );
  });
});

describe("a request in JSON", () => {
  const issuesOf = (input: unknown) =>
    v.safeParse(requestSchema, input).issues?.map(({ message }) => message) ?? [];

  test("has the settings of a request alone, by the flags' names", () => {
    expect(requestKeys).toContain("guidanceRescale");
    expect(requestKeys).not.toContain("outPath");
    expect(v.parse(requestSchema, {})).toEqual({});
    const json = { prompt: "a house", guidance_rescale: 0.5, num_images: 2, split_batch: false };
    expect(v.parse(requestSchema, json)).toEqual({
      prompt: "a house",
      guidanceRescale: 0.5,
      imageCount: 2,
      splitBatch: false,
    });
    expect(issuesOf({ out_path: "x.png" })).toEqual(['There is no setting "out_path".']);
    expect(issuesOf({ guidanceRescale: 1 })).toEqual([
      'There is no setting "guidanceRescale". Did you mean guidance_rescale?',
    ]);
    expect(issuesOf({ steps: 1 })).toEqual([
      'There is no setting "steps". Did you mean num_inference_steps?',
    ]);
    expect(issuesOf([])).toEqual(["A request must be an object, not an array."]);
    expect(issuesOf("x")).toEqual(['A request must be an object, not "x".']);
  });

  test("names the invalid field", () => {
    expect(issuesOf({ guidance_scale: 101 })).toEqual([
      "guidance_scale must be a number from 0 to 100, not 101.",
    ]);
    expect(issuesOf({ num_inference_steps: "20" })).toEqual([
      'num_inference_steps must be a whole number from 1 to 1000, not "20".',
    ]);
    expect(issuesOf({ split_batch: 1, rng: null })).toEqual([
      "rng must be cpu or cuda, not null.",
      "split_batch must be true or false, not 1.",
    ]);
  });

  test("takes seeds of 64 bits as texts", () => {
    expect(v.parse(requestSchema, { seed: "9223372036854775807" })).toEqual({ seed: seedMax });
    expect(v.parse(requestSchema, { seed: 7 })).toEqual({ seed: 7n });
    expect(issuesOf({ seed: 2 ** 60 })[0]).toStartWith("seed must be a whole number from 0 to");
    expect(issuesOf({ seed: -1 })[0]).toEndWith("not -1.");
  });

  test.each(fieldKeys)("%s: any value passes", (key) => {
    fc.assert(
      fc.property(valid(settingOf(key)), (value) => {
        const json = JSON.parse(
          JSON.stringify({ [asField(key)]: value }, (_, x) =>
            typeof x === "bigint" ? String(x) : x,
          ),
        );
        expect(v.parse(requestSchema, json) as Record<string, unknown>).toEqual({ [key]: value });
      }),
    );
  });
});

test("one setting is named in at most six files of the product", () => {
  const product = readSources(["src/**/*.ts", "zig/**/*.zig", "cuda/**/*.{cu,cuh}"]).filter(
    ({ name }) => !name.startsWith("src/bench/"),
  );
  const naming = product.filter(({ text }) => /guidanceRescale|guidance_rescale/i.test(text));
  // The table, the ABI with its generated bindings, the job, its use and its kernel.
  expect(naming.map(({ name }) => name)).toContain("src/settings/table/image.ts");
  expect(naming.length, naming.map(({ name }) => name).join()).toBeLessThanOrEqual(6);
});
