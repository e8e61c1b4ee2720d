/**
 * LoRAs for SDXL in full size, over checkpoints in one file: every weight that kohya trains is
 * found under both of its names, where diffusers' own conversion of the checkpoint's keys has it.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { matchAdapter } from "../../src/adapters/file.ts";
import { type AdaptableModel, adaptableModelOf } from "../../src/adapters/weights.ts";
import { writeSparseFile } from "../../src/bench/support/single-file.ts";
import { openSingleFile } from "../../src/models/single-file.ts";
import { factorsFor, headerOf } from "../support/adapter-headers.ts";
import { checkpointTensors, originalHeaders, shapesOf } from "../support/original-headers.ts";
import { refusal } from "../support/refusal.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-original-loras-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function adaptable(variant: string): Promise<AdaptableModel> {
  const path = join(folder, `${variant}.safetensors`);
  writeSparseFile(path, shapesOf(checkpointTensors(variant)));
  return adaptableModelOf(await openSingleFile(path));
}

/** The weights of a UNet that kohya trains by default: linear layers of its attentions. */
function trained(variant: string) {
  return originalHeaders.unet[variant]!.filter(([name, shape]) => {
    return /\.(transformer_blocks|proj_in|proj_out)\b/.test(name) && shape.length > 1;
  });
}

function loraOf(weights: readonly { base: string; shape: readonly number[] }[]) {
  const shapes = weights.map(({ base, shape }) => {
    return factorsFor(shape, `${base}.lora_up.weight`, `${base}.lora_down.weight`);
  });
  return headerOf(Object.assign({}, ...shapes));
}

/** The key of a weight as a LoRA's name. */
function joined(key: string): string {
  return `lora_unet_${key
    .replace(/^model\.diffusion_model\./, "")
    .replace(/\.weight$/, "")
    .replaceAll(".", "_")}`;
}

describe("a LoRA for SDXL", () => {
  test("in kohya's names, original and diffusers', changes what diffusers converts", async () => {
    const model = await adaptable("base");
    const weights = trained("base");
    // As kohya says when it starts: "create LoRA for U-Net: 722 modules".
    expect(weights).toHaveLength(722);
    const expected = weights.map(([, , key]) => key);
    for (const index of [0, 2] as const) {
      const lora = loraOf(weights.map((each) => ({ base: joined(each[index]), shape: each[1] })));
      const { targets, unmatched } = matchAdapter(lora, model);
      expect(unmatched).toEqual([]);
      expect(targets.map(({ key }) => key)).toEqual(expected);
    }
  });

  test("finds the text encoders' 72 and 192 modules, thirds of one matrix included", async () => {
    const model = await adaptable("base");
    const modules = ["self_attn_q_proj", "self_attn_k_proj", "self_attn_v_proj"];
    modules.push("self_attn_out_proj", "mlp_fc1", "mlp_fc2");
    const of = (number: number, layerCount: number, width: number) =>
      Array.from({ length: layerCount }, (_, layer) => layer).flatMap((layer) =>
        modules.map((module) => {
          const wide = 4 * width;
          const shape = { mlp_fc1: [wide, width], mlp_fc2: [width, wide] }[module];
          const base = `lora_te${number}_text_model_encoder_layers_${layer}_${module}`;
          return { base, shape: shape ?? [width, width] };
        }),
      );
    const both = [...of(1, 12, 768), ...of(2, 32, 1280)];
    const { targets, unmatched } = matchAdapter(loraOf(both), model);
    expect(unmatched).toEqual([]);
    expect(targets).toHaveLength(72 + 192);
  });

  test("is counted on SSD-1B as far as it fits; one for the refiner is refused", async () => {
    const weights = (variant: string) =>
      trained(variant).map(([name, shape]) => ({ base: joined(name), shape }));
    const ssd = await adaptable("SSD-1B");
    const found = matchAdapter(loraOf(weights("base")), ssd);
    expect(found.targets.length + found.unmatched.length / 2).toBe(722);
    expect(found.unmatched.length).toBeGreaterThan(200);
    const base = await adaptable("base");
    const message = await refusal(
      () => matchAdapter(loraOf(weights("refiner")), base),
      "bad-weights",
    );
    expect(message).toContain("is a LoRA for the SDXL refiner, and does not fit this model: lora_");
  });
});
