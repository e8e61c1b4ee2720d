/**
 * The VAE's decoder in f16 on latents four times as large as any sampler leaves them, and with a
 * residual stream beyond what f16 holds: never a NaN, and the image of f32.
 */

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import type { Model } from "../../src/models/model.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import { openVae, withVae } from "../../src/models/vae-choice.ts";
import { ModelParts, randomNormal } from "../../src/native/testing.ts";
import { relativeL2 } from "../support/compare.ts";
import { emulated } from "../support/emulator.ts";
import { copyModel, removeCopies } from "../support/model-copy.ts";
import { refusal } from "../support/refusal.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);

const golden = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const mini = await openModelFolder(join(import.meta.dir, "../../src/assets/mini-sdxl"));

/** SDXL's own decoder passes 1e5 inside, f16 ends at 65504: here it reaches about 1e6. */
const loud = await openModelFolder(
  copyModel("vae/diffusion_pytorch_model.safetensors", (tensors) => {
    for (const part of ["weight", "bias"]) {
      const tensor = tensors.get(`decoder.conv_in.${part}`);
      if (tensor?.dtype !== "F16") throw new Error("the golden VAE is in f16");
      const values = new Float16Array(new Uint8Array(tensor.bytes).buffer);
      tensor.bytes = new Uint8Array(values.map((value) => 2e4 * value).buffer);
    }
  }),
);

/** The whole residual stream is 1e6 times as large, which the group norms take out again. */
const overflowing = await openModelFolder(
  copyModel("vae/diffusion_pytorch_model.safetensors", (tensors) => {
    for (const [name, tensor] of tensors) {
      const onStream = /^decoder\.(conv_in|.*(\.conv2|\.to_out\.0))\./.test(name);
      const offset = /^decoder\..*(conv_shortcut|upsamplers.*)\.?.*bias$/.test(name);
      if (!onStream && !offset) continue;
      const values = new Float16Array(new Uint8Array(tensor.bytes).buffer);
      const wide = Float32Array.from(values, (value) => 1e6 * value);
      tensor.dtype = "F32";
      tensor.bytes = new Uint8Array(wide.buffer);
    }
  }),
);

/** The loud one as a file that is chosen for the model, as --vae does. */
const chosen = withVae(golden, await openVae(loud.weights.vae.files[0]!, golden.vae));

afterAll(removeCopies);

test("an overflow of f16 ends the image and names --dtype bf16, which has the range", async () => {
  const sample = largeLatent(golden, 1n, 8, 8);
  const inF16 = () => decode(overflowing, sample, 8, 8, emulated());
  expect(await refusal(inF16, "not-finite")).toContain("overflow in f16: --dtype bf16");
  const inBf16 = await decode(overflowing, sample, 8, 8, emulated({ dtype: "bf16" }));
  expect(inBf16.every(Number.isFinite)).toBe(true);
});

describe.each([
  ["reference", golden],
  ["bundled", mini],
  ["loud", loud],
  ["reference model with a loud VAE, hence the", chosen],
] as const)("the %s model", (_, model) => {
  test.each([
    [1n, 8, 8],
    [2n, 4, 12],
    [3n, 8, 4],
  ])("seed %s, %d x %d latents times 4", async (seed, rows, width) => {
    const sample = largeLatent(model, seed, rows, width);
    const ours = await decode(model, sample, rows, width, emulated());
    expect(ours.every(Number.isFinite)).toBe(true);
    const onCpu = await decode(model, sample, rows, width, null);
    // Some twenty roundings to 11 bits, one after the other.
    expect(relativeL2(ours, onCpu)).toBeLessThanOrEqual(5e-3);
  });
});

function largeLatent(model: Model, seed: bigint, rows: number, width: number): Float32Array {
  const { latentChannels, scalingFactor } = model.vae;
  const noise = randomNormal(seed, 1, latentChannels * rows * width);
  return noise.map((value) => (4 * value) / scalingFactor);
}

async function decode(
  model: Model,
  sample: Float32Array,
  rows: number,
  width: number,
  gpu: ReturnType<typeof emulated> | null,
): Promise<Float32Array> {
  const parts = await ModelParts.open(nativeModelOf(model), { gpu });
  try {
    return (await parts.decode(sample, rows, width)).image;
  } finally {
    await parts.close();
  }
}
