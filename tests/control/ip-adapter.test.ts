/**
 * IP-Adapters before anything is computed: images as their encoders read them, to the level that
 * PIL gives; what files are and whether they fit the model; which encoder lies beside an adapter.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { pillowResized } from "../../src/image/pillow-resize.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { clipPatches } from "../../src/networks/clip-pixels.ts";
import { openClipVision, parseClipVisionConfig } from "../../src/networks/clip-vision.ts";
import { openIpAdapter } from "../../src/networks/ip-adapter.ts";
import { encoderOf } from "../../src/networks/ip-encoder.ts";
import {
  adapterShapes,
  encoderConfig,
  encoderShapes,
  folder,
  ipImage,
  picture,
  removeIpAdapters,
  type Shapes,
  writeIpAdapters,
  writeZeros,
} from "../support/ip-adapter-files.ts";
import { refusal } from "../support/refusal.ts";

// Cores may be busy.
setDefaultTimeout(30_000);
afterAll(removeIpAdapters);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const files = writeIpAdapters();
const sha256 = (bytes: Uint8Array) => new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
const asked = { named: undefined, flag: "--ip-encoder" };

describe("images as encoders read them", () => {
  // Of Pillow 12.3: Image.fromarray(pixels).resize(size, Image.BICUBIC).
  test.each([
    [97, 61, 35, 22, "4ce0156b7de1265e97ffc13397be5145da0d9dc8edff19d3fc549831c8c1c387"],
    [61, 97, 22, 35, "1f36aaded41bc2f2b87b562b7cd1a567dd78fd366ac6a87212ab9525ee9b6be2"],
    [20, 17, 64, 54, "db4c00af83773cd14be71c314033d1dbe09ac0f19a3dbf63531f00f050b7844a"],
    [300, 20, 224, 224, "860aa32e35dd01cd360f80017d70d9646066d9db93961ac40529968d732d5c77"],
    [224, 300, 224, 111, "87f7310d734ce42d41ffd44b960768643c37958a83d8012e9a202ee078e4892b"],
  ])("%dx%d to %dx%d as PIL", (width, height, newWidth, newHeight, expected) => {
    const image = picture({ width, height }, (x, y, c) => {
      return 5 * x + 3 * y + 70 * c + ((x * y) >> 3) + ((x * 7919 + y * 104729 + c * 31) % 97);
    });
    const { pixels } = pillowResized(image, { width: newWidth, height: newHeight }, "bicubic");
    expect(sha256(pixels)).toBe(expected);
  });

  // Of transformers 5.18's CLIPImageProcessorPil, in the order of the patches.
  test("normalised as CLIPImageProcessor", () => {
    const patches = clipPatches(ipImage(0), { imageSize: 32, patchSize: 8 });
    expect(sha256(new Uint8Array(patches.buffer))).toBe(
      "7ad58ed8a6dcb6a0a77f878f77deb6b19b547172c58fa83d1692fa860d28113c",
    );
    const other = clipPatches(ipImage(1), { imageSize: 32, patchSize: 8 });
    expect(sha256(new Uint8Array(other.buffer))).toBe(
      "58a52b985ffa6de986a51f746f3da6d1e02b86168d84582c5159b244ff1a0d5a",
    );
  });
});

describe("adapters", () => {
  test("plain and plus, by keys and shapes", () => {
    const plain = openIpAdapter(files.plain, model);
    expect(plain.config).toMatchObject({ projection: "plain", tokenCount: 4, embedSize: 24 });
    const plus = openIpAdapter(files.plus, model);
    expect(plus.config).toEqual({
      ...{ projection: "plus", tokenCount: 6, embedSize: 32, hiddenSize: 48, layerCount: 4 },
      ...{ headCount: 2, innerSize: 128, feedForwardSize: 192 },
    });
    expect(plus.weights.names!.get("image_proj.layers.1.attn.to_v.weight")).toEqual({
      name: "image_proj.layers.1.0.to_kv.weight",
      part: [1, 2],
    });
  });

  test("the middle block's cross-attentions are the last in files", () => {
    const { names } = openIpAdapter(files.plain, model).weights;
    const numbers = Array.from({ length: 17 }, (_, slot) => {
      return Number(names!.get(`ip_adapter.${slot}.to_k_ip.weight`)!.name.split(".")[1]);
    });
    expect(numbers.slice(0, 9)).toEqual([1, 3, 5, 7, 9, 11, 31, 33, 13]);
  });

  test("with diffusers' names", () => {
    const own = openIpAdapter(files.plus, model);
    const shapes = diffusersShapes(adapterShapes("plus"), own.weights.names!);
    const other = openIpAdapter(writeZeros("diffusers", shapes), model);
    expect(other.config).toEqual(own.config);
    expect([...other.weights.names!.keys()].sort()).toEqual([...own.weights.names!.keys()].sort());
  });

  test.each<[name: string, change: (shapes: Shapes) => Shapes, said: string]>([
    [
      "of Stable Diffusion 1.5",
      (shapes) => reshaped(shapes, ([out, dim]) => [out!, ...(dim === 192 ? [768] : [])]),
      "is an IP-Adapter for Stable Diffusion 1.5 whose tokens have 768 channels",
    ],
    [
      "of fewer cross-attentions",
      (shapes) => without(shapes, "ip_adapter.33."),
      "has keys and values for 16 cross-attentions, and this model has 17",
    ],
    [
      "of other widths",
      (shapes) => ({ ...shapes, "ip_adapter.1.to_k_ip.weight": [32, 192] }),
      "is made for a UNet of other widths: ip_adapter.1.to_k_ip.weight has 32x192",
    ],
    [
      "FaceID",
      (shapes) => ({ ...shapes, "ip_adapter.1.to_q_lora.down.weight": [4, 64] }),
      "is an IP-Adapter FaceID, which needs face recognition (InsightFace)",
    ],
    [
      "FaceID Plus",
      (shapes) => ({ ...shapes, "image_proj.perceiver_resampler.proj_in.weight": [4, 4] }),
      "is an IP-Adapter FaceID Plus, which needs face recognition",
    ],
    [
      "Full Face",
      (shapes) => ({ ...shapes, "image_proj.proj.3.weight": [192] }),
      "is an IP-Adapter Full Face, which is not supported",
    ],
    [
      "without its projection",
      (shapes) => without(shapes, "image_proj.proj."),
      "has a projection that is neither that of a plain IP-Adapter nor of a plus",
    ],
    ["a LoRA", () => ({ "lora_unet_x.lora_up.weight": [4, 4] }), "is a LoRA, not an IP-Adapter"],
  ])("%s: refused", async (name, change, said) => {
    const path = writeZeros(name, change(adapterShapes("plain")));
    expect(await refusal(() => openIpAdapter(path, model), "bad-weights")).toContain(said);
  });

  test("pickled: refused with how to convert it", async () => {
    const path = join(folder, "ip-adapter.bin");
    writeFileSync(path, Uint8Array.of(0x80, 2, 0x7d, 0x71, 0, 0x2e, 0, 0, 0, 0, 0, 0));
    const said = await refusal(() => openIpAdapter(path, model), "bad-weights");
    expect(said).toContain("safetensors.torch.save_file");
  });
});

describe("image encoders", () => {
  test("one beside the adapter, by its width", async () => {
    const plus = openIpAdapter(files.plus, model);
    const encoder = await encoderOf(plus, asked);
    expect(encoder.path).toBe(join(folder, "models/image_encoder"));
    expect(encoder.config).toMatchObject({ hiddenSize: 32, projectionSize: 24, headCount: 2 });
    // Another one, which comes first, does not fit.
    const other = join(dirname(files.plus), "image_encoder");
    mkdirSync(other);
    writeFileSync(
      join(other, "config.json"),
      JSON.stringify({ ...encoderConfig, hidden_size: 64 }),
    );
    const weights = writeZeros("other", encoderShapes(64));
    renameSync(weights, join(other, "model.safetensors"));
    expect((await encoderOf(plus, asked)).path).toBe(encoder.path);
    const wrong = await refusal(() => encoderOf(plus, { ...asked, named: other }), "bad-model");
    expect(wrong).toContain("gives 32 channels, and ");
    expect(wrong).toContain("gives 64: name that encoder's folder by --ip-encoder.");
  });

  test("none beside it", async () => {
    const alone = writeZeros("a/b/alone", adapterShapes("plain"));
    const said = await refusal(() => encoderOf(openIpAdapter(alone, model), asked), "bad-model");
    expect(said).toContain("there is none beside it");
  });

  test("a single file: known by its width, and with OpenCLIP's names", async () => {
    const vitH = await openClipVision(writeZeros("vit-h", bigShapes()));
    expect(vitH.config).toMatchObject({ headCount: 16, hiddenAct: "gelu", imageSize: 32 });
    expect(vitH.config.projectionSize).toBe(1024);
    const open = await openClipVision(writeZeros("open", openClipShapes()));
    expect(open.config).toMatchObject({ hiddenSize: 1280, layerCount: 1, projectionSize: 1024 });
    const key = "vision_model.encoder.layers.0.self_attn.k_proj.weight";
    expect(open.weights.names!.get(key)).toEqual({
      name: "visual.transformer.resblocks.0.attn.in_proj_weight",
      part: [1, 3],
    });
  });

  test("what is none is refused", async () => {
    const refused = (path: string) => refusal(() => openClipVision(path), "bad-weights");
    const small = writeZeros("small", encoderShapes());
    expect(await refused(small)).toContain("whose heads only a config.json tells");
    expect(await refused(files.plain)).toContain(
      "is an adapter (IP-Adapter), not an image encoder",
    );
    const bare = writeZeros("bare", without(bigShapes(), "visual_projection."));
    expect(await refused(bare)).toContain("without its projection");
    const uneven = { ...encoderConfig, patch_size: 7 };
    const said = await refusal(() => parseClipVisionConfig("c.json", uneven), "bad-model");
    expect(said).toContain("patch_size 7 does not divide image_size 32");
  });
});

/** Of ViT-H's width; what is not looked at has one number. */
function bigShapes(): Shapes {
  const shapes = encoderShapes(1280, 8, 1024);
  for (const key of Object.keys(shapes)) {
    if (/self_attn|mlp\.fc2|layers\.[12]/.test(key)) shapes[key] = [1];
  }
  return shapes;
}

function without(shapes: Shapes, prefix: string): Shapes {
  return Object.fromEntries(Object.entries(shapes).filter(([key]) => !key.startsWith(prefix)));
}

function reshaped(shapes: Shapes, change: (shape: number[]) => number[]): Shapes {
  return Object.fromEntries(Object.entries(shapes).map(([key, shape]) => [key, change(shape)]));
}

/** As a UNet of diffusers has them. */
function diffusersShapes(
  shapes: Shapes,
  names: ReadonlyMap<string, { name: string; part?: readonly [number, number] }>,
): Shapes {
  const paths = attentionPaths();
  const renamed: Shapes = {};
  for (const [key, { name, part }] of names) {
    const [, slot, end] = /^ip_adapter\.(\d+)\.(to_[kv]_ip)\.weight$/.exec(key) ?? [];
    const own = slot
      ? `${paths[Number(slot)]}.processor.${end}.0.weight`
      : key.replace(/^image_proj\./, "encoder_hid_proj.image_projection_layers.0.");
    const [first, ...rest] = shapes[name]!;
    renamed[own] = [first! / (part?.[1] ?? 1), ...rest];
  }
  return renamed;
}

function attentionPaths(): string[] {
  const {
    downTransformerLayers: downs,
    upTransformerLayers: ups,
    midTransformerLayers,
  } = model.unet;
  const of = (side: string, levels: number[][]) =>
    levels.flatMap((depths, level) =>
      depths.flatMap((depth, i) =>
        Array.from({ length: depth }, (_, block) => {
          return `${side}_blocks.${level}.attentions.${i}.transformer_blocks.${block}.attn2`;
        }),
      ),
    );
  const mid = Array.from({ length: midTransformerLayers }, (_, block) => {
    return `mid_block.attentions.0.transformer_blocks.${block}.attn2`;
  });
  return [...of("down", downs), ...mid, ...of("up", ups)];
}

function openClipShapes(): Shapes {
  return {
    "visual.class_embedding": [1280],
    "visual.conv1.weight": [1280, 3, 2, 2],
    "visual.positional_embedding": [5, 1280],
    "visual.proj": [1280, 1024],
    "visual.transformer.resblocks.0.attn.in_proj_weight": [3, 1],
    "visual.transformer.resblocks.0.mlp.c_fc.weight": [8, 1],
  };
}
