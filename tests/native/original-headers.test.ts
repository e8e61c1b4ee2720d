/**
 * Full-size checkpoints of the SDXL family as sparse files: their kind, their configuration, and
 * where each weight is, compared with diffusers' conversion; the library finds every tensor.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeSparseFile } from "../../src/bench/support/single-file.ts";
import { checkHasInput } from "../../src/models/kind.ts";
import type { Model } from "../../src/models/model.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import { readSafetensorsHeader } from "../../src/models/safetensors-header.ts";
import { classifyHeader, describeFile } from "../../src/models/single-file/classify.ts";
import { openSingleFile } from "../../src/models/single-file.ts";
import { checkModel } from "../../src/native/plan.ts";
import { checkpointTensors, originalHeaders, shapesOf } from "../support/original-headers.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-original-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function sparse(name: string, shapes: ReadonlyMap<string, readonly number[]>): string {
  const path = join(folder, `${name}.safetensors`);
  writeSparseFile(path, shapes);
  return path;
}

/** As in `OriginalTensor`: where the model has each of diffusers' keys. */
function placesOf({ weights }: Model): Map<string, string> {
  const places = new Map<string, string>();
  for (const [component, { names }] of Object.entries(weights)) {
    for (const [key, { name, part, transposed }] of names ?? []) {
      places.set(`${component} ${key}`, `${name} ${part?.[0] ?? (transposed ? "T" : "")}`);
    }
  }
  return places;
}

function expectedPlaces(variant: string): [string, string][] {
  const component = (name: string) => {
    if (name.startsWith("model.diffusion_model.")) return "unet";
    if (name.startsWith("first_stage_model.")) return "vae";
    return name.startsWith("conditioner.embedders.0.transformer.") ? "textEncoder" : "textEncoder2";
  };
  return checkpointTensors(variant).map(([name, , key, part = ""]) => [
    `${component(name)} ${key}`,
    `${name} ${part}`,
  ]);
}

const variants: [string, description: string, kind: string, Partial<Model["unet"]>][] = [
  ["base", "SDXL base", "base", { headCounts: [5, 10, 20], midTransformerLayers: 10 }],
  ["inpainting", "SDXL inpainting", "inpainting", { inChannels: 9 }],
  [
    "refiner",
    "the SDXL refiner",
    "refiner",
    { headCounts: [6, 12, 24, 24], crossAttentionDim: 1280, midTransformerLayers: 4 },
  ],
  [
    "SSD-1B",
    "SSD-1B",
    "base",
    { midBlock: "resnet", upTransformerLayers: [[4, 4, 10], [2, 1, 1], []] },
  ],
  ["Vega", "Vega", "base", { midBlock: "resnet", downTransformerLayers: [[], [1, 1], [2, 2]] }],
  [
    "KOALA-700M",
    "KOALA-700M",
    "base",
    { midBlock: "none", layersPerBlock: [1, 1, 1], upTransformerLayers: [[5, 5], [2, 2], []] },
  ],
  ["KOALA-1B", "KOALA-1B", "base", { midBlock: "cross_attention", midTransformerLayers: 6 }],
];

describe("full-size checkpoints in one file", () => {
  for (const [variant, description, kind, unet] of variants) {
    test(`${variant}: every tensor is known, none is missing`, async () => {
      const path = sparse(variant, shapesOf(checkpointTensors(variant)));
      const found = classifyHeader(readSafetensorsHeader(path));
      expect(describeFile(found)).toBe(`a checkpoint of ${description}`);
      const model = await openSingleFile(path);
      expect(model.warnings).toEqual([]);
      expect(String(model.kind)).toBe(kind);
      expect(model.unet).toMatchObject(unet);
      const places = placesOf(model);
      for (const [key, expected] of expectedPlaces(variant)) {
        expect([key, places.get(key)]).toEqual([key, expected]);
      }
      // The library asks for every weight by its key and shape.
      checkModel(nativeModelOf(model), model.sizeMultiple / model.vaeFactor);
    });
  }

  test("the rest of the configuration is SDXL's", async () => {
    const model = await openSingleFile(join(folder, "base.safetensors"));
    const { clip, clip2, vae, scheduler, nativeSize, forceZerosForEmptyPrompt } = model;
    expect(clip).toMatchObject({ hiddenSize: 768, headCount: 12, hiddenAct: "quick_gelu" });
    expect(clip).toMatchObject({ layerCount: 12, intermediateSize: 3072, vocabSize: 49408 });
    expect(clip2).toMatchObject({ hiddenSize: 1280, headCount: 20, hiddenAct: "gelu" });
    expect(clip2).toMatchObject({ layerCount: 32, intermediateSize: 5120, projectionSize: 1280 });
    expect(vae).toMatchObject({ scalingFactor: 0.13025, blockOutChannels: [128, 256, 512, 512] });
    expect(vae).toMatchObject({ layersPerBlock: 2, useQuantConv: true, midAttention: true });
    expect(scheduler).toMatchObject({
      className: "EulerDiscreteScheduler",
      betaStart: 0.00085,
      betaEnd: 0.012,
      betaSchedule: "scaled_linear",
      timestepSpacing: "leading",
      stepsOffset: 1,
      predictionType: "epsilon",
    });
    expect([nativeSize, forceZerosForEmptyPrompt]).toEqual([{ width: 1024, height: 1024 }, true]);
    expect(model.name).toBe("base");
    expect(model.tokenizer!.encode("a cat").ids.slice(0, 4)).toEqual(
      Int32Array.of(49406, 320, 2368, 49407),
    );
  });

  test("refiners and inpainting models open, and need an image", async () => {
    const refiner = await openSingleFile(join(folder, "refiner.safetensors"));
    expect([refiner.clip, refiner.tokenizer, refiner.forceZerosForEmptyPrompt]).toEqual([
      null,
      null,
      false,
    ]);
    expect(() => checkHasInput(refiner, null)).toThrow("is a refiner");
    const inpainting = await openSingleFile(join(folder, "inpainting.safetensors"));
    expect(() => checkHasInput(inpainting, null)).toThrow("is for inpainting");
  });

  test("prefixes, pointwise projections and spellings change nothing", async () => {
    const base = await openSingleFile(join(folder, "base.safetensors"));
    const projection = "conditioner.embedders.1.model.text_projection";
    const spellings = [`${projection}.weight`, `${projection}.weight.weight`];
    for (const [index, spelling] of spellings.entries()) {
      const tensors = checkpointTensors("base").map(([name, shape, ...rest]) => {
        const own = name.replace(
          /^model\.diffusion_model\./,
          index === 0 ? "diffusion_model." : "",
        );
        const isPointwise = /^(diffusion_model\.)?\w+_blocks?\..*\.proj_(in|out)\.weight$/.test(
          own,
        );
        const ends = isPointwise ? [1, 1] : [];
        return [own === projection ? spelling : own, [...shape, ...ends], ...rest] as const;
      });
      const path = sparse("spelled", new Map(tensors.map(([name, shape]) => [name, shape])));
      const model = await openSingleFile(path);
      expect(model.warnings).toEqual([]);
      expect(model.unet).toEqual(base.unet);
      expect(model.clip2).toEqual(base.clip2);
      const source = model.weights.textEncoder2.names!.get("text_projection.weight");
      expect(source).toEqual({ name: spelling });
      checkModel(nativeModelOf(model), model.sizeMultiple / model.vaeFactor);
    }
  });

  test("the second text encoder may have transformers' names", async () => {
    const { unet, clip, clip2, vae } = originalHeaders;
    const prefix = "conditioner.embedders.1.model.transformer.";
    const renamed = clip2.map(([, shape, key, part = ""]): [string, number[]] => {
      const own = part >= "0" && part <= "2" ? [shape[0]! / 3, ...shape.slice(1)] : shape;
      return [prefix + key, own];
    });
    const shapes = new Map([...shapesOf([...unet.base!, ...clip, ...vae]), ...renamed]);
    const model = await openSingleFile(sparse("hf", shapes));
    expect(model.warnings).toEqual([]);
    expect(model.clip2).toMatchObject({ hiddenAct: "gelu", projectionSize: 1280, layerCount: 32 });
    checkModel(nativeModelOf(model), model.sizeMultiple / model.vaeFactor);
  });

  test("what lacks a network says what there is to do", async () => {
    const { unet, clip, clip2 } = originalHeaders;
    const sentences: [ReadonlyMap<string, number[]>, string][] = [
      [
        shapesOf(unet.base!),
        "lacks both text encoders and the VAE; name a diffusers " +
          "folder that has the rest: --config FOLDER.",
      ],
      [
        shapesOf([...unet.base!, ...clip, ...clip2]),
        "lacks the VAE; name a diffusers folder that has the rest: --config FOLDER.",
      ],
      [
        shapesOf(checkpointTensors("base").filter(([name]) => !/middle_block.1.norm/.test(name))),
        "lacks a tensor of the UNet: model.diffusion_model.middle_block.1.norm.weight.",
      ],
      [
        shapesOf(checkpointTensors("base").filter(([name]) => !/mlp.c_fc/.test(name))),
        "lacks the tensor conditioner.embedders.1.model.transformer.resblocks.0.mlp.c_fc.weight, " +
          "which shows a size of the model.",
      ],
    ];
    for (const [shapes, sentence] of sentences) {
      const path = sparse("part", shapes);
      await expect(openSingleFile(path)).rejects.toThrow(`${path} ${sentence}`);
    }
    const path = sparse("no-vae", shapesOf([...unet.base!, ...clip, ...clip2]));
    const model = await openSingleFile(path, { needsVae: false });
    const base = await openSingleFile(join(folder, "base.safetensors"));
    expect(model.vae).toEqual(base.vae);
  });
});
