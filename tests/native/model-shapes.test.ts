/**
 * Models that differ from SDXL in what conditions them: one text encoder, another hidden state,
 * five time ids (refiners), nine input channels (inpainting). Each is made from the golden model,
 * whose outputs are compared with PyTorch elsewhere, such that both must compute the same numbers.
 * And models that differ in their blocks, the distilled ones, against diffusers.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { readSafetensors, tensorOf } from "../../src/bench/support/safetensors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import type { NativeModel } from "../../src/native/handle.ts";
import { ModelParts, type NoisePredictionInput, randomNormal } from "../../src/native/testing.ts";
import { relativeL2 } from "../support/compare.ts";
import { distilledModel, distilledNames, removeDistilled } from "../support/distilled.ts";
import { drawLatents } from "../support/draw.ts";
import { copyModel, type RawTensor, removeCopies, type Tensors } from "../support/model-copy.ts";

afterAll(removeCopies);
afterAll(removeDistilled);

const folder = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const golden = nativeModelOf(folder);
const { text, unet } = golden.config;
const clip = folder.clip!;
const { clip2 } = folder;
const { additionTimeEmbedDim, additionInputDim, crossAttentionDim } = folder.unet;
const { latentChannels } = folder.vae;
const unetFile = "unet/diffusion_pytorch_model.safetensors";
const tokens = {
  ids: folder.tokenizer!.encode("a red circle").ids,
  ids2: folder.tokenizer2.encode("a red circle").ids,
  endIndex2: folder.tokenizer2.encode("a red circle").endIndex,
};

async function withParts<T>(model: NativeModel, use: (parts: ModelParts) => Promise<T>) {
  const parts = await ModelParts.open(model, { threadCount: 1 });
  try {
    return await use(parts);
  } finally {
    await parts.close();
  }
}

const embed = (model: NativeModel) => withParts(model, (parts) => parts.promptEmbeds(tokens));

function withText(changes: Partial<typeof text>): NativeModel {
  const config = { ...golden.config, text: { ...text, ...changes } };
  return { ...golden, config: { ...config, unet: { ...unet, ...widthsOf(config.text) } } };
}

function widthsOf({ textEncoder, textEncoder2 }: typeof text) {
  const widths = [textEncoder.isPresent ? clip.hiddenSize : 0, clip2.hiddenSize];
  if (!textEncoder2.isPresent) widths.pop();
  return { crossAttentionDim: widths.reduce((sum, width) => sum + width) };
}

describe("text encoders", () => {
  const size1 = clip.hiddenSize;
  const size2 = clip2.hiddenSize;
  const part = (joined: Float32Array, first: number, count: number) =>
    joined.filter((_, i) => i % (size1 + size2) >= first && i % (size1 + size2) < first + count);

  test("without the first one, the second gives what it gave", async () => {
    const both = await embed(golden);
    const absent = { ...text.textEncoder, isPresent: 0 };
    // Neither its tokens nor its files are read. The UNet is for both: text alone is computed.
    const alone = withText({ textEncoder: absent });
    alone.weights = {
      ...golden.weights,
      textEncoder: { files: ["/absent"], names: null },
      unet: { files: [crossAttentionOf(size2)], names: null },
    };
    const one = await withParts(alone, (parts) =>
      parts.promptEmbeds({ ...tokens, ids: new Int32Array() }),
    );
    expect(one.promptEmbeds).toEqual(part(both.promptEmbeds, size1, size2));
    expect(one.pooled).toEqual(both.pooled);
  });

  /** The golden UNet's file with keys and values for so many channels of text. */
  function crossAttentionOf(width: number): string {
    const path = copyModel(unetFile, (tensors) => {
      for (const [name, tensor] of tensors) {
        if (!/attn2\.to_[kv]\.weight$/.test(name)) continue;
        tensors.set(
          name,
          columns(tensor, (row) => row.slice(0, width)),
        );
      }
    });
    return join(path, unetFile);
  }

  test("the last state is what a model of one layer more calls penultimate", async () => {
    const penultimate = await embed(golden);
    const { layerCount } = clip;
    // Two layers are the least: the first of both models keeps its count.
    const last = { ...text.textEncoder, hiddenState: "last" as const, layerCount: layerCount - 1 };
    const found = await embed(withText({ textEncoder: last }));
    expect(found.promptEmbeds).toEqual(penultimate.promptEmbeds);
  });

  test("the pooled state is the normed last state of the end token, projected", async () => {
    const usual = await embed(golden);
    const normed = { ...text.textEncoder2, hiddenState: "last" as const, finalNorm: 1 };
    const found = await embed(withText({ textEncoder2: normed }));
    expect(relativeL2(found.pooled, usual.pooled)).toBeLessThan(1e-6);
    const plain = { ...text.textEncoder2, hiddenState: "last" as const };
    const unnormed = await embed(withText({ textEncoder2: plain }));
    expect(relativeL2(unnormed.pooled, usual.pooled)).toBeLessThan(1e-6);
    const states = part(found.promptEmbeds, size1, size2);
    const end = states.slice(tokens.endIndex2 * size2, (tokens.endIndex2 + 1) * size2);
    const file = readSafetensors(folder.weights.textEncoder2.files[0]!);
    const { data } = tensorOf(file, "text_projection.weight");
    const projected = usual.pooled.map((_, i) =>
      end.reduce((sum, value, j) => sum + value * data[i * size2 + j]!, 0),
    );
    expect(relativeL2(projected, usual.pooled)).toBeLessThan(1e-5);
  });

  test("configs that contradict themselves are refused", async () => {
    const absent = { ...text.textEncoder2, isPresent: 0 };
    const normed = { ...text.textEncoder2, finalNorm: 1 };
    for (const [model, sentence] of [
      [withText({ textEncoder2: absent }), "the text encoder that pools needs a projection"],
      [withText({ textEncoder2: normed }), "cannot norm its penultimate state"],
      [{ ...golden, config: { ...golden.config, unet: { ...unet, timeIdCount: 7 } } }, "1 to 6"],
      [{ ...golden, config: { ...golden.config, unet: { ...unet, inChannels: 5 } } }, "a mask"],
    ] as const) {
      await expect(embed(model)).rejects.toThrow(sentence);
    }
  });
});

describe("UNets", () => {
  const rows = 8;
  const width = 8;
  const plane = rows * width;
  const input: NoisePredictionInput = {
    sample: randomNormal(1n, 1, latentChannels * plane),
    batch: 1,
    latentRows: rows,
    latentWidth: width,
    timestep: 500,
    promptEmbeds: randomNormal(2n, 1, 77 * crossAttentionDim),
    pooled: randomNormal(3n, 1, clip2.projectionSize),
    timeIds: new Float32Array([512, 512, 0, 0, 2.5, 0]),
  };

  async function predicted(
    change: (tensors: Tensors) => void,
    config: Partial<typeof unet>,
    changes: Partial<NoisePredictionInput>,
  ): Promise<Float32Array> {
    const path = join(copyModel(unetFile, change), unetFile);
    const weights = { ...golden.weights, unet: { files: [path], names: null } };
    const model = { weights, config: { ...golden.config, unet: { ...unet, ...config } } };
    const call = { ...input, ...changes };
    return (await withParts(model, (parts) => parts.noisePrediction(call))).output;
  }

  const reference = readSafetensors(join(import.meta.dir, "../fixtures/model-shapes.safetensors"));
  // f32 against f32: the bar of the networks' parity.
  const allowed = 2e-5;

  test("a refiner's five time ids give what diffusers gives", async () => {
    const kept = additionInputDim - additionTimeEmbedDim;
    const name = "add_embedding.linear_1.weight";
    const found = await predicted(
      (t) =>
        t.set(
          name,
          columns(t.get(name)!, (row) => row.slice(0, kept)),
        ),
      { timeIdCount: 5, additionInputDim: kept },
      { timeIds: new Float32Array([512, 512, 0, 0, 2.5]) },
    );
    expect(relativeL2(found, tensorOf(reference, "refiner").data)).toBeLessThan(allowed);
  });

  test("nine input channels give what diffusers gives", async () => {
    const name = "conv_in.weight";
    const taps = 9;
    const found = await predicted(
      (t) => {
        const wide = columns(t.get(name)!, (row) => {
          const channel = (i: number) => row.slice(i * taps, (i + 1) * taps);
          const more = [3, 2, 1, 0, 0].flatMap((i) => channel(i).map((value) => value / 2));
          return [...row, ...more];
        });
        t.set(name, { ...wide, shape: [wide.shape[0]!, 9, 3, 3] });
      },
      { inChannels: 9 },
      { sample: new Float32Array([...input.sample, ...randomNormal(4n, 1, 5 * plane)]) },
    );
    expect(relativeL2(found, tensorOf(reference, "inpainting").data)).toBeLessThan(allowed);
  });

  describe.each(distilledNames)("%s", (name) => {
    test("gives what diffusers gives", async () => {
      const model = nativeModelOf(await distilledModel(name));
      const { output } = await withParts(model, (parts) => parts.noisePrediction(input));
      expect(relativeL2(output, tensorOf(reference, name).data)).toBeLessThan(allowed);
    });

    test("2 and 4 patches give what one rank gives", async () => {
      const model = await distilledModel(name);
      const work = { model, width: 64, height: 128, stepCount: 2, splitBatch: false };
      const alone = await drawLatents(work);
      for (const rankCount of [2, 4]) {
        const together = await drawLatents({ ...work, rankCount });
        expect(relativeL2(together, alone)).toBeLessThan(1e-5);
      }
    });
  });

  test("five time ids are six whose last one has no weight", async () => {
    const name = "add_embedding.linear_1.weight";
    const kept = additionInputDim - additionTimeEmbedDim;
    const edit = (change: (row: number[]) => number[]) => (t: Tensors) =>
      t.set(name, columns(t.get(name)!, change));
    const six = await predicted(
      edit((row) => row.map((value, i) => (i < kept ? value : 0))),
      {},
      { timeIds: new Float32Array([512, 512, 0, 0, 2.5, 77]) },
    );
    const five = await predicted(
      edit((row) => row.slice(0, kept)),
      { timeIdCount: 5, additionInputDim: kept },
      { timeIds: new Float32Array([512, 512, 0, 0, 2.5]) },
    );
    expect(relativeL2(five, six)).toBeLessThan(1e-6);
    const other = await predicted(
      edit((row) => row.slice(0, kept)),
      { timeIdCount: 5, additionInputDim: kept },
      { timeIds: new Float32Array([512, 512, 0, 0, 6]) },
    );
    expect(relativeL2(other, six)).toBeGreaterThan(1e-6);
  });

  test("nine channels are four where others repeat them with half the weight", async () => {
    const four = await predicted(() => {}, {}, {});
    const taps = 9;
    const name = "conv_in.weight";
    const nine = await predicted(
      (t) => {
        // (out, in, 3, 3): the latent's weights halved, once more, then the mask's, which are 0.
        const halved = columns(t.get(name)!, (row) => {
          const half = row.map((value) => value / 2);
          return [...half, ...half, ...new Array<number>(taps).fill(0)];
        });
        const [out] = halved.shape;
        t.set(name, { ...halved, shape: [out!, 2 * latentChannels + 1, 3, 3] });
      },
      { inChannels: 2 * latentChannels + 1 },
      {
        sample: new Float32Array([
          ...input.sample,
          ...input.sample,
          ...input.sample.slice(0, plane),
        ]),
      },
    );
    expect(nine.length).toBe(latentChannels * plane);
    expect(relativeL2(nine, four)).toBeLessThan(1e-5);
  });
});

/** A matrix (or convolution, as one) with every row changed; f16 or f32. */
function columns(tensor: RawTensor, change: (row: number[]) => number[]): RawTensor {
  const [out] = tensor.shape;
  const bytes = Uint8Array.from(tensor.bytes).buffer;
  const values = tensor.dtype === "F16" ? new Float16Array(bytes) : new Float32Array(bytes);
  const width = values.length / out!;
  const changed = Array.from({ length: out! }, (_, i) =>
    change([...values.subarray(i * width, (i + 1) * width)]),
  );
  const flat = changed.flat();
  const data = tensor.dtype === "F16" ? Float16Array.from(flat) : Float32Array.from(flat);
  return {
    dtype: tensor.dtype,
    shape: [out!, changed[0]!.length],
    bytes: new Uint8Array(data.buffer),
  };
}
