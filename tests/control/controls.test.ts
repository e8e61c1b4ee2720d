/**
 * Networks that hints steer with: what files and folders are, by keys and shapes, and what is
 * refused, in one sentence each.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { BasedXLError } from "../../src/errors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { controlNetModuleNames } from "../../src/networks/controlnet-names.ts";
import { openControl } from "../../src/networks/identify.ts";
import { type ControlRequest, planControls, readControls } from "../../src/pipeline/controls.ts";
import { asFlag } from "../../src/settings/values.ts";
import { controlFile, controlFolder, removeControls } from "../support/control-networks.ts";

afterAll(removeControls);

const golden = join(import.meta.dir, "../fixtures/golden/model");
const model = await openModelFolder(golden);
const plain = controlFolder("plain");
const adapter = controlFolder("adapter");

/** diffusers' keys to the original ones. */
function original(key: string): string {
  const dot = key.lastIndexOf(".");
  const module = controlNetModuleNames(model.unet).find(
    ({ diffusers }) => diffusers === key.slice(0, dot),
  );
  return `control_model.${module!.original}${key.slice(dot)}`;
}

/** Likewise of a T2I-Adapter, whose layers are counted over all blocks. */
function originalOfAdapter(key: string): string {
  return key
    .replace(/^adapter\./, "")
    .replace(/^body\.(\d+)\.resnets\.(\d+)/, (_, i, j) => `body.${2 * Number(i) + Number(j)}`)
    .replace(/^body\.(\d+)\.in_conv/, (_, i) => `body.${2 * Number(i)}.in_conv`);
}

describe("single files are the folder", () => {
  test.each(["plain", "small", "union"] as const)("%s with diffusers' keys", async (kind) => {
    const folder = await openControl(controlFolder(kind), model);
    const file = await openControl(
      controlFile(kind, (key) => key),
      model,
    );
    expect(comparable(file)).toEqual(comparable(folder));
  });

  test("with the original keys", async () => {
    const folder = await openControl(plain, model);
    const file = await openControl(controlFile("plain", original), model);
    expect(comparable(file)).toEqual(comparable(folder));
    expect([...file.weights.names!.keys()]).toContain("controlnet_cond_embedding.blocks.5.weight");
  });

  test.each([
    ["diffusers' keys", (key: string) => key],
    ["the original keys", originalOfAdapter],
  ])("a T2I-Adapter with %s", async (_, rename) => {
    const folder = await openControl(controlFolder("adapter"), model);
    const file = await openControl(controlFile("adapter", rename), model);
    expect(file.kind).toBe("t2i_adapter");
    expect(file.config).toEqual(folder.config);
    const names = [...folder.weights.names!.keys()];
    expect([...file.weights.names!]).toEqual(names.map((key) => [key, { name: rename(key) }]));
  });

  /** Without what a ControlNet does not read of its UNet. */
  function comparable(network: Awaited<ReturnType<typeof openControl>>) {
    if (network.kind !== "controlnet") throw new Error("no ControlNet");
    const { upTransformerLayers: _, outChannels: __, ...unet } = network.config.unet;
    return { ...network.config, unet };
  }
});

test("steps are those that lie in the range as a whole, as in diffusers", () => {
  const read = (start: number, end: number) => [{ start, end }] as never;
  const planned = (start: number, end: number, count: number) => {
    const [control] = planControls(read(start, end), count);
    return [control!.stepFirst, control!.stepEnd];
  };
  expect(planned(0, 1, 5)).toEqual([0, 5]);
  expect(planned(0.2, 0.8, 5)).toEqual([1, 4]);
  expect(planned(0.25, 0.75, 5)).toEqual([2, 3]);
  expect(planned(0.9, 1, 5)).toEqual([0, 0]);
});

describe("refused", () => {
  const image = { pixels: new Uint8Array(64 * 64 * 3), width: 64, height: 64 };
  const usual = { controlnet: [plain], controlImage: [image] };
  const joined = {
    ...{ controlnet: [controlFolder("union")], controlImage: [image, image] },
    controlType: [1, 3],
  };
  const read = (request: ControlRequest) => readControls(request, model, (name) => name, asFlag);
  const other = (changes: object) => controlFolder("plain", changes);
  const noAttention = { down_block_types: ["DownBlock2D", "DownBlock2D", "DownBlock2D"] };

  test.each<[string, ControlRequest]>([
    ["needs a hint image", { controlnet: [plain] }],
    ["needs a network that it is for", { controlImage: [image] }],
    ["There are 1 of", { ...usual, controlScale: [1, 2] }],
    ["reads one hint, and there are 2", { ...usual, controlImage: [image, image] }],
    ["There are 2 of --control-image", { ...joined, controlScale: [1, 1, 1] }],
    ["Hints that union reads at once have the same", { ...joined, controlEnd: [0.5, 1] }],
    ["must be a number from 0 to 10", { ...usual, controlScale: [11] }],
    ["must be a number from 0 to 1", { ...usual, controlEnd: [1.5] }],
    ["must be below", { ...usual, controlStart: [0.5], controlEnd: [0.5] }],
    ["is for union ControlNets", { ...usual, controlType: [3] }],
    ["must say what the hint is", { ...usual, controlnet: [controlFolder("union")] }],
    ["has 6 types", { ...usual, controlnet: [controlFolder("union")], controlType: [7] }],
    ["cannot be read as an image", { ...usual, controlImage: [new Uint8Array([1, 2, 3])] }],
    ["there is no such file", { ...usual, controlImage: ["/nowhere.png"] }],
    [
      "Stable Diffusion 1.5",
      { ...usual, controlnet: [other({ addition_embed_type: null, cross_attention_dim: 768 })] },
    ],
    ["another model than", { ...usual, controlnet: [other({ cross_attention_dim: 128 })] }],
    ["another model than", { ...usual, controlnet: [other({ in_channels: 9 })] }],
    ["another model than", { ...usual, controlnet: [other({ layers_per_block: 1 })] }],
    ["another model than", { ...usual, controlnet: [other({ conditioning_channels: 4 })] }],
    [
      "halves hints so many times",
      { ...usual, controlnet: [other({ conditioning_embedding_out_channels: [8, 16] })] },
    ],
    ["global_pool_conditions", { ...usual, controlnet: [other({ global_pool_conditions: true })] }],
    ["_class_name", { ...usual, controlnet: [other({ ...noAttention, _class_name: "X" })] }],
    ["Control-LoRA", { ...usual, controlnet: [controlLora()] }],
    ["is for union ControlNets", { ...usual, controlnet: [adapter], controlType: [3] }],
    [
      "adapter_type",
      { ...usual, controlnet: [controlFolder("adapter", { adapter_type: "light_adapter" })] },
    ],
    ["another model than SDXL", { ...usual, controlnet: [lightAdapter()] }],
    ["_class_name", { ...usual, controlnet: [join(golden, "vae")] }],
    [
      "the diffusion model",
      { ...usual, controlnet: [join(golden, "unet/diffusion_pytorch_model.safetensors")] },
    ],
  ])("%s", async (words, request) => {
    const error: unknown = await read(request).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(BasedXLError);
    const sentence = (error as BasedXLError).message;
    expect(sentence).toContain(words);
    expect(sentence).toMatch(/^[^\n]{10,600}\.$/);
  });

  function lightAdapter(): string {
    const rename = (key: string) => (key === "adapter.conv_in.weight" ? `${key}_` : key);
    return controlFile("adapter", rename);
  }

  function controlLora(): string {
    return controlFile("small", (key) => (key === "conv_in.bias" ? "lora_controlnet" : key));
  }
});
