/**
 * Files of upscalers: what their keys and shapes say, and what is refused.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { readSafetensorsHeader } from "../../src/models/safetensors-header.ts";
import { classifyHeader } from "../../src/models/single-file/classify.ts";
import { openUpscaler } from "../../src/networks/upscaler.ts";
import { refusal } from "../support/refusal.ts";
import { safetensorsBytes } from "../support/safetensors-bytes.ts";
import {
  firstKeyOf,
  removeUpscalers,
  type UpscalerName,
  upscalers,
  writeUpscaler,
} from "../support/upscaler-files.ts";

afterAll(removeUpscalers);

const rrdb = { kind: "rrdbnet", features: 16, growth: 8, upsampleCount: 2, shuffle: 1 } as const;

describe("are known by keys and shapes", () => {
  const expected = [
    ["rrdbnet_x4", 4, { ...rrdb, blockCount: 2, unshuffle: 1 }],
    ["rrdbnet_x2", 2, { ...rrdb, blockCount: 1, unshuffle: 2 }],
    ["rrdbnet_x1", 1, { ...rrdb, blockCount: 1, unshuffle: 4 }],
    ["compact_x4", 4, { kind: "compact", blockCount: 2, features: 16, shuffle: 4 }],
  ] as const;

  test.each([...expected])("%s", (name, scale, config) => {
    const opened = openUpscaler(writeUpscaler(name));
    expect(opened).toMatchObject({ kind: "upscaler", name, scale, config });
    expect([...opened.weights.names!.keys()].sort()).toEqual(Object.keys(upscalers[name]).sort());
  });

  test.each([
    ["ESRGAN's own keys", "rrdbnet_x4", firstKeyOf(2)],
    ["params_ema", "rrdbnet_x4", (key: string) => `params_ema.${key}`],
    ["params", "compact_x4", (key: string) => `params.${key}`],
    ["both", "rrdbnet_x4", (key: string) => `params.${firstKeyOf(2)(key)}`],
  ] as const)("%s", (file, name, keyOf) => {
    const path = writeUpscaler(name, { file: `${file}.safetensors`, keyOf });
    const plain = openUpscaler(writeUpscaler(name));
    const { config, weights } = openUpscaler(path);
    expect(config).toEqual(plain.config);
    const found = [...weights.names!].map(([key, source]) => [key, source.name]);
    expect(found).toEqual(Object.keys(upscalers[name]).map((key) => [key, keyOf(key)]));
    expect(classifyHeader(readSafetensorsHeader(path)).kind).toBe("upscaler");
  });
});

describe("are refused", () => {
  function fileOf(name: UpscalerName, change: (header: Record<string, number[]>) => void): string {
    const shapes = structuredClone(upscalers[name]) as Record<string, number[]>;
    change(shapes);
    const path = join(dirname(writeUpscaler(name)), "changed.safetensors");
    writeFileSync(path, safetensorsBytes(shapes));
    return path;
  }

  const cases: [string, UpscalerName, (shapes: Record<string, number[]>) => void][] = [
    [
      "is ESRGAN+",
      "rrdbnet_x4",
      (s) => Object.assign(s, { "body.0.rdb1.conv1x1.weight": [8, 16, 1, 1] }),
    ],
    ["not of RGB", "rrdbnet_x4", (s) => Object.assign(s, { "conv_first.weight": [16, 1, 3, 3] })],
    ["not of RGB", "compact_x4", (s) => Object.assign(s, { "body.6.weight": [16, 16, 3, 3] })],
    [
      "is a VAE",
      "rrdbnet_x4",
      (s) => {
        for (const key of Object.keys(s)) delete s[key];
        s["decoder.conv_in.weight"] = [8, 4, 3, 3];
        s["decoder.up_blocks.0.resnets.0.conv1.weight"] = [8, 8, 3, 3];
      },
    ],
  ];

  test.each(cases)("%s (%s)", async (sentence, name, change) => {
    const path = fileOf(name, change);
    expect(await refusal(() => openUpscaler(path), "bad-weights")).toContain(sentence);
  });
});
