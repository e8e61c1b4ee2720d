/**
 * Models with weights in 8 bits, plain and scaled in both of ComfyUI's notations, against PyTorch,
 * which quantizes and widens the same weights (tests/reference/make_fp8.py).
 */

import { afterAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { measureCopy } from "../../src/bench/support/parity.ts";
import { readSafetensors, type Tensor } from "../../src/bench/support/safetensors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { withSession } from "../support/draw.ts";
import { copyVariant, unetFile, variants } from "../support/fp8.ts";
import { measured } from "../support/measured.ts";
import { copyModel, removeCopies } from "../support/model-copy.ts";

afterAll(removeCopies);

const fixtures = join(import.meta.dir, "../fixtures");
const recorded = readSafetensors(join(fixtures, "fp8.safetensors"));
function outputsOf(variant: string): Map<string, Tensor> {
  const own = recorded.entries().filter(([name]) => name.startsWith(`${variant}/`));
  return new Map(own.map(([name, tensor]) => [name.slice(variant.length + 1), tensor]));
}

describe.each(Object.keys(variants))("%s", (variant) => {
  const { folder, hashes } = copyVariant(variant);

  test("the file has PyTorch's numbers and scales", () => {
    expect(hashes).toEqual(variants[variant]!);
  });

  test("outputs within the bars of other types", async () => {
    const measures = await Array.fromAsync(measureCopy(folder, outputsOf(variant)));
    expect(measures.length).toBe(variant === "e4m3.plain" ? 7 : 1);
    for (const { what, measured: error, allowed } of measures) {
      const figure = measured(`${variant}: ${what}`, error, allowed);
      expect({ what, figure, isWithin: figure <= allowed }).toMatchObject({ isWithin: true });
    }
  });

  test("no tensor is reported as unused, and weights stay in 8 bits", async () => {
    const warnings: string[] = [];
    const notes: string[] = [];
    await withSession(
      {
        model: await openModelFolder(folder),
        width: 64,
        height: 64,
        onWarning: (sentence) => void warnings.push(sentence),
        onWeightNote: (sentence) => void notes.push(sentence),
      },
      async () => {},
    );
    expect(warnings).toEqual([]);
    expect(notes.length).toBe(Object.keys(variants[variant]!).length);
    expect(notes).toContainEqual(
      expect.stringMatching(/^UNet: weights in 8 bits \(\d+\.\d MiB\)\.$/),
    );
  });
});

test("a format that is not read is refused by its name", async () => {
  const key = "conv_in.comfy_quant";
  const text = new TextEncoder().encode('{"format":"nvfp4"}');
  const folder = copyModel(unetFile, (tensors) => {
    tensors.set(key, { dtype: "U8", shape: [text.length], bytes: text });
  });
  const model = await openModelFolder(folder);
  const opened = withSession({ model, width: 64, height: 64 }, async () => {});
  await expect(opened).rejects.toThrow("layer conv_in is quantized as nvfp4");
});
