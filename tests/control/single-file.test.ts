/**
 * What is refused as `--model` by what it is, marks of what a model predicts, and random damage to
 * headers: every file opens or is refused in a sentence.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { writeSparseFile } from "../../src/bench/support/single-file.ts";
import { BasedXLError } from "../../src/errors.ts";
import { openModel } from "../../src/models/open.ts";
import type { SafetensorsHeader } from "../../src/models/safetensors-header.ts";
import { classifyHeader, describeFile } from "../../src/models/single-file/classify.ts";
import { networksOf } from "../../src/models/single-file/networks.ts";
import { detectPrediction } from "../../src/models/single-file/prediction.ts";
import { unknownKeys } from "../../src/models/single-file/weight-names.ts";
import { checkpointTensors, originalHeaders, shapesOf } from "../support/original-headers.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-refused-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const cases: [Record<string, number[]>, string][] = [
  [
    { "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": [4, 2048] },
    "is a LoRA for SDXL, not an SDXL checkpoint; name it with --lora, beside a model.",
  ],
  [
    { "decoder.conv_in.weight": [8, 4, 3, 3], "decoder.up.0.block.0.conv1.weight": [8] },
    "is a VAE of SDXL or Stable Diffusion 1.5, not an SDXL checkpoint; name it with --vae, " +
      "beside a model.",
  ],
  [
    { clip_l: [1, 768], clip_g: [1, 1280] },
    "is an embedding (textual inversion) for SDXL, not an SDXL checkpoint; name it with " +
      "--embedding, beside a model.",
  ],
  [
    { "controlnet_cond_embedding.conv_in.weight": [8], "add_embedding.linear_1.weight": [8] },
    "is a ControlNet for SDXL, not an SDXL checkpoint.",
  ],
  [
    { "model.diffusion_model.joint_blocks.0.context_block.mlp.fc1.weight": [8] },
    "is the diffusion model of Stable Diffusion 3 alone, not an SDXL checkpoint.",
  ],
  [
    { "text_model.encoder.layers.0.mlp.fc1.weight": [8] },
    "is a text encoder (CLIP), not an SDXL checkpoint.",
  ],
  [{ "lm_head.weight": [8] }, "is a file of an unknown kind, not an SDXL checkpoint."],
];

describe("given as a model", () => {
  for (const [tensors, sentence] of cases) {
    test(`a file that ${sentence.split(",")[0]} is refused`, async () => {
      const path = join(folder, "model.safetensors");
      writeSparseFile(path, new Map(Object.entries(tensors)));
      await expect(openModel(path)).rejects.toThrow(
        new BasedXLError("bad-model", `${path} ${sentence}`),
      );
    });
  }

  test("a folder has its own configs", async () => {
    await expect(openModel(goldenModel, { config: goldenModel })).rejects.toThrow(
      `${goldenModel} is no checkpoint in one file: a folder has its own configs, and --config ` +
        "is not for it.",
    );
  });
});

describe("a full-size checkpoint", () => {
  const path = join(folder, "full.safetensors");
  const block = "model.diffusion_model.input_blocks.8.1.transformer_blocks.4.";
  const layer = "conditioner.embedders.0.transformer.text_model.encoder.layers.7.";
  // Each shows a size: without it the shapes describe a smaller model.
  const cases = [
    [`${block}attn2.to_k.weight`, "the UNet", `${block}norm1.weight`],
    [`${layer}layer_norm1.weight`, "the first text encoder", `${layer}self_attn.k_proj.bias`],
    [
      "conditioner.embedders.1.model.transformer.resblocks.20.ln_1.weight",
      "the second text encoder",
      "conditioner.embedders.1.model.transformer.resblocks.20.ln_1.bias",
    ],
    [
      "first_stage_model.decoder.mid.attn_1.q.weight",
      "the VAE",
      "first_stage_model.encoder.mid.attn_1.q.bias",
    ],
    ["first_stage_model.quant_conv.weight", "the VAE", "first_stage_model.quant_conv.bias"],
  ] as const;
  for (const [lost, noun, first] of cases) {
    test(`that has lost ${lost} is refused`, async () => {
      const shapes = shapesOf(checkpointTensors("base"));
      expect(shapes.delete(lost)).toBeTrue();
      expect(shapes.has(first)).toBeTrue();
      writeSparseFile(path, shapes);
      const error = await openModel(path).catch((each) => each);
      expect(error).toBeInstanceOf(BasedXLError);
      const told = `${path} has tensors that ${noun}, as its keys and shapes describe it, does not`;
      expect(error.message).toStartWith(told);
      expect(error.message).toContain(first);
    });
  }
});

function headerOf(
  tensors: Iterable<readonly [string, readonly number[]]>,
  metadata: Record<string, string> = {},
): SafetensorsHeader {
  const entries = [...tensors].map(
    ([name, shape]) => [name, { dtype: "F16", shape, begin: 0, end: 0 }] as const,
  );
  return {
    path: "m.safetensors",
    fileBytes: 0,
    headerBytes: 0,
    tensors: new Map(entries),
    metadata: new Map(Object.entries(metadata)),
  };
}

describe("the prediction type", () => {
  const found = (marks: string[], metadata: Record<string, string> = {}) =>
    detectPrediction(
      headerOf(
        marks.map((mark) => [mark, [0]] as const),
        metadata,
      ),
    );
  const key = "modelspec.prediction_type";
  const v = { predictionType: "v_prediction", rescaleBetasZeroSnr: false } as const;
  // The header's metadata does not say how the noise ends.
  const headerV = { ...v, rescaleBetasZeroSnr: null };
  const headerEpsilon = { predictionType: "epsilon", rescaleBetasZeroSnr: null } as const;

  test("is that of the marks, then that of the header", () => {
    expect(found([])).toBeNull();
    expect(found(["v_pred"])).toEqual(v);
    expect(found(["v_pred", "ztsnr"])).toEqual({ ...v, rescaleBetasZeroSnr: true });
    // Alone it says nothing of the schedule.
    expect(found(["ztsnr"])).toBeNull();
    expect(found(["model.diffusion_model.v_pred"])).toEqual(v);
    expect(found([], { [key]: "v" })).toEqual(headerV);
    expect(found([], { [key]: "epsilon" })).toEqual(headerEpsilon);
    expect(found(["v_pred"], { [key]: "epsilon" })).toEqual(v);
    expect(found([], { [key]: "flow" })).toBeNull();
  });

  test("is refused by name where it is EDM's", () => {
    expect(() => found(["edm_mean", "edm_std", "v_pred"])).toThrow("Playground 2.5 (EDM)");
    expect(() => found(["edm_vpred.sigma_max", "edm_vpred.sigma_min"])).toThrow("CosXL (EDM");
    expect(found(["edm_mean"])).toBeNull();
  });
});

describe("for any header", () => {
  const { unet, clip, clip2, vae } = originalHeaders;
  // Few enough to run many times: the first blocks of each network.
  const some = [...unet["KOALA-700M"]!, ...clip, ...clip2, ...vae].filter(
    ([name]) =>
      !/layers\.[2-9]|layers\.1\d|resblocks\.([2-9]|[1-3]\d)|transformer_blocks\.[1-9]/.test(name),
  );
  const words = [
    ...some.map(([name]) => name),
    ...cases.flatMap(([tensors]) => Object.keys(tensors)),
    ...["v_pred", "edm_vpred.sigma_max", "__proto__", "a.b.", ".", "", "input_blocks.0.0.weight"],
  ];
  const key = fc.oneof(
    fc.constantFrom(...words),
    fc.string({ unit: "binary", maxLength: 20 }),
    fc
      .tuple(fc.constantFrom(...words), fc.nat(60), fc.string({ maxLength: 3 }))
      .map(([word, at, text]) => word.slice(0, at) + text + word.slice(at)),
  );
  const shape = fc.array(fc.oneof(fc.constantFrom(0, 1, 3, 4, 64, 320, 2048), fc.maxSafeNat()), {
    maxLength: 5,
  });

  function look(header: SafetensorsHeader): void {
    try {
      expect(describeFile(classifyHeader(header))).toMatch(/^(a|an|the) \S/);
      detectPrediction(header);
      const networks = networksOf(header, null);
      unknownKeys(
        header,
        Object.values(networks).flatMap((each) => each?.names ?? []),
      );
    } catch (error) {
      if (!(error instanceof BasedXLError)) throw error;
      expect(error.message).toMatch(/^[^\p{Cc}]+\.$/u);
    }
  }

  test("of random keys and shapes there is a kind, or a sentence", () => {
    const tensors = fc.array(fc.tuple(key, shape), { maxLength: 12 });
    const metadata = fc.dictionary(fc.string({ maxLength: 8 }), fc.string({ maxLength: 8 }));
    const property = fc.property(tensors, metadata, (list, meta) => look(headerOf(list, meta)));
    fc.assert(property, { numRuns: 20_000 });
  }, 60_000);

  test("of a checkpoint with random edits as well", () => {
    const edit = fc.record({ at: fc.nat(), key: fc.option(key), shape: fc.option(shape) });
    const property = fc.property(fc.array(edit, { minLength: 1, maxLength: 8 }), (edits) => {
      const list = some.map(([name, own]) => [name, own] as [string, number[]]);
      for (const each of edits) {
        const at = each.at % list.length;
        list[at] = [each.key ?? list[at]![0], each.shape ?? list[at]![1]];
      }
      look(headerOf(list));
    });
    fc.assert(property, { numRuns: 1000 });
  }, 60_000);
});
