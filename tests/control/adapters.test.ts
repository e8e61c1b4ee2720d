/**
 * Adapter files against a model's modules: every spelling of every module finds its weight, what is
 * left over is counted, and what is no adapter for the model is refused by what it is.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type NamedModule, prefixes } from "../../src/adapters/aliases.ts";
import { type AdapterFile, matchAdapter } from "../../src/adapters/file.ts";
import { splitKey } from "../../src/adapters/keys.ts";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { BasedXLError } from "../../src/errors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { openClipModuleNames, unetModuleNames } from "../../src/models/names.ts";
import { adapterPath, factorsFor, golden, headerOf } from "../support/adapter-headers.ts";
import { refusal } from "../support/refusal.ts";

const model = await openModelFolder(goldenModel);

/** All modules whose weight can have factors, with their original names. */
const modules = [
  ...unetModuleNames(model.unet).map((names) => ({ component: "unet" as const, ...names })),
  ...openClipModuleNames(model.clip!).map(({ diffusers }) => ({
    component: "text_encoder" as const,
    ...{ diffusers, original: diffusers },
  })),
  ...openClipModuleNames(model.clip2).map(({ diffusers }) => ({
    component: "text_encoder_2" as const,
    ...{ diffusers, original: diffusers },
  })),
].flatMap(({ component, diffusers: path, original }) => {
  const module: NamedModule = { component, path };
  const weight = golden.weightOf(module, "weight");
  return weight && weight.shape.length > 1 ? [{ ...module, original, weight }] : [];
});

/** Endings of the two factors, and whether the module's dots are "_" before them. */
const spellings: readonly (readonly [up: string, down: string])[] = [
  [".lora_up.weight", ".lora_down.weight"],
  [".lora_up", ".lora_down"],
  [".lora.up.weight", ".lora.down.weight"],
  ["_lora.up.weight", "_lora.down.weight"],
  [".lora_B.weight", ".lora_A.weight"],
  [".lora_B.default.weight", ".lora_A.default.weight"],
  [".lora_B.my_style.weight", ".lora_A.my_style.weight"],
  [".lora_B", ".lora_A"],
  [".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"],
];

const anySpelling = fc.record({
  module: fc.constantFrom(...modules),
  prefix: fc.constantFrom(...prefixes),
  isOriginal: fc.boolean(),
  isPeft: fc.boolean(),
  ending: fc.constantFrom(...spellings),
});

describe("keys", () => {
  test("the model has modules of every kind", () => {
    expect(modules.length).toBeGreaterThan(300);
    expect(new Set(modules.map(({ component }) => component)).size).toBe(3);
  });

  test("any module in any spelling finds its weight, and its alpha counts", () => {
    fc.assert(
      fc.property(anySpelling, ({ module, prefix, isOriginal, isPeft, ending }) => {
        const [text, component, spelling] = prefix;
        if (component !== module.component) return;
        const name = isOriginal ? module.original : module.path;
        const isDotted = spelling === "dotted";
        const wrapped = isPeft && isDotted ? `base_model.model.${name}` : name;
        const base = text + (isDotted ? wrapped : wrapped.replaceAll(".", "_"));
        const [up, down] = ending.map((each) => base + each) as [string, string];
        const { targets, unmatched } = match(factorsFor(module.weight.shape, up, down));
        expect(unmatched).toEqual([]);
        expect(targets).toEqual([
          {
            component: module.component,
            key: module.weight.key,
            algorithm: "lora",
            scale: 1,
            doraNorm: "original",
            tensors: { up, down },
          },
        ]);
      }),
      { numRuns: 3000 },
    );
  });

  test("alpha is divided by the rank, which every kind has elsewhere", () => {
    const linear = "lora_unet_mid_block_attentions_0_proj_in";
    const scales = [
      pair(linear, [128, 128]),
      { hada_w1_a: [128, 3], hada_w1_b: [3, 128], hada_w2_a: [128, 3], hada_w2_b: [3, 128] },
      { lokr_w1: [4, 8], lokr_w2_a: [32, 4], lokr_w2_b: [4, 16] },
      { lokr_w1_a: [4, 2], lokr_w1_b: [2, 8], lokr_w2: [32, 16] },
      // Without factors alpha is not used.
      { lokr_w1: [4, 8], lokr_w2: [32, 16] },
      { diff: [128, 128] },
    ].map((shapes) => {
      const named = Object.entries({ ...shapes, alpha: [] }).map(([name, shape]) => {
        return [name.startsWith("lora_unet") ? name : `${linear}.${name}`, shape] as const;
      });
      const { targets, unmatched } = match(Object.fromEntries(named));
      expect(unmatched).toEqual([]);
      return targets[0]!.scale;
    });
    expect(scales).toEqual([3, 2, 1.5, 3, 1, 1]);
  });

  test("old attention processors of diffusers", () => {
    const attention = "mid_block.attentions.0.transformer_blocks.0.attn1";
    const { targets } = match({
      ...pair(`unet.${attention}.processor.to_q_lora`, [128, 128], ".up.weight", ".down.weight"),
      ...pair(`${attention}.processor.to_out_lora`, [128, 128], ".up.weight", ".down.weight"),
    });
    const keys = targets.map(({ key }) => key);
    expect(keys).toEqual([`${attention}.to_q.weight`, `${attention}.to_out.0.weight`]);
  });

  test("the projection of the second text encoder", () => {
    const { targets } = match(pair("lora_te2_text_projection", [128, 128]));
    expect(targets[0]).toMatchObject({
      component: "text_encoder_2",
      key: "text_projection.weight",
    });
  });

  test("the original names of modules that are named twice are dropped, as in diffusers", () => {
    const found = match({
      ...pair("lora_unet_middle_block_1_proj_in", [128, 128]),
      ...pair("lora_unet_mid_block_attentions_0_proj_in", [128, 128]),
      ...pair("lora_unet_middle_block_1_proj_out", [128, 128]),
    });
    const ups = found.targets.map(({ tensors }) => tensors.up);
    expect(ups).toEqual([
      "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight",
      "lora_unet_middle_block_1_proj_out.lora_up.weight",
    ]);
    expect(found.namedTwice).toBe(1);
  });

  test("what matches nothing is left over, in order; embeddings are not", () => {
    const found = match({
      ...pair("lora_unet_mid_block_attentions_0_proj_in", [128, 128]),
      ...pair("lora_unet_mid_block_attentions_7_proj_in", [128, 128]),
      "lora_unet_mid_block_attentions_0_proj_out.lora_up.weight": [128, 2],
      "lora_unet_mid_block_resnets_0_conv1.alpha": [],
      "bundle_emb.word.clip_l": [1, 64],
      nonsense: [3],
    });
    expect(found.targets).toHaveLength(1);
    expect([...found.unmatched].sort()).toEqual([
      "lora_unet_mid_block_attentions_0_proj_out.lora_up.weight",
      "lora_unet_mid_block_attentions_7_proj_in.lora_down.weight",
      "lora_unet_mid_block_attentions_7_proj_in.lora_up.weight",
      "lora_unet_mid_block_resnets_0_conv1.alpha",
      "nonsense",
    ]);
  });
});

describe("kinds of changes", () => {
  const conv = "lora_unet_mid_block_resnets_0_conv1";
  const linear = "lora_unet_mid_block_attentions_0_proj_in";
  const files: [string, string, Record<string, number[]>][] = [
    ["lora", "conv1.weight", { lora_up: [128, 2, 1, 1], lora_down: [2, 128, 3, 3] }],
    [
      "lora",
      "conv1.weight",
      { lora_up: [128, 3, 1, 1], lora_mid: [3, 2, 3, 3], lora_down: [2, 128, 1, 1] },
    ],
    [
      "loha",
      "conv1.weight",
      { hada_w1_a: [128, 2], hada_w1_b: [2, 1152], hada_w2_a: [128, 3], hada_w2_b: [3, 1152] },
    ],
    [
      "loha",
      "conv1.weight",
      {
        ...{ hada_t1: [2, 2, 3, 3], hada_w1_a: [2, 128], hada_w1_b: [2, 128] },
        ...{ hada_t2: [2, 2, 3, 3], hada_w2_a: [2, 128], hada_w2_b: [2, 128] },
      },
    ],
    ["lokr", "conv1.weight", { lokr_w1: [4, 8], lokr_w2: [32, 16, 3, 3] }],
    [
      "lokr",
      "conv1.weight",
      { lokr_w1: [4, 8], lokr_t2: [2, 2, 3, 3], lokr_w2_a: [2, 32], lokr_w2_b: [2, 16] },
    ],
    [
      "lokr",
      "proj_in.weight",
      { lokr_w1_a: [4, 2], lokr_w1_b: [2, 8], lokr_w2_a: [32, 2], lokr_w2_b: [2, 16] },
    ],
    ["difference", "conv1.weight", { diff: [128, 128, 3, 3] }],
    ["difference", "conv1.bias", { diff_b: [128] }],
    ["replace", "proj_in.weight", { set_weight: [128, 128] }],
  ];

  test.each(files)("%s of %s: %p", (algorithm, key, shapes) => {
    const base = key.startsWith("conv1") ? conv : linear;
    const named = Object.entries(shapes).map(([name, shape]) => {
      return [`${base}.${/^lora/.test(name) ? `${name}.weight` : name}`, shape] as const;
    });
    const { targets, unmatched } = match(Object.fromEntries(named));
    expect(unmatched).toEqual([]);
    expect(targets).toHaveLength(1);
    expect(targets[0]).toMatchObject({ algorithm, scale: 1 });
    expect(targets[0]!.key).toEndWith(key);
    expect(Object.keys(targets[0]!.tensors)).toHaveLength(named.length);
  });

  test("norms, by LyCORIS' names", () => {
    const norm = "lora_unet_mid_block_resnets_0_norm1";
    const { targets } = match({ [`${norm}.w_norm`]: [128], [`${norm}.b_norm`]: [128] });
    expect(targets.map(({ key, algorithm }) => `${key} ${algorithm}`)).toEqual([
      "mid_block.resnets.0.norm1.weight difference",
      "mid_block.resnets.0.norm1.bias difference",
    ]);
  });

  test("DoRA: kohya's is told from PEFT's, whose norm is the sum's", () => {
    const norms = (scale: Record<string, number[]>) =>
      match({ ...pair(linear, [128, 128]), ...scale }).targets.map((target) => target.doraNorm);
    expect(norms({ [`${linear}.dora_scale`]: [128, 1] })).toEqual(["original"]);
    expect(norms({ [`${linear}.dora_scale`]: [1, 128] })).toEqual(["original"]);
    expect(norms({ [`${linear}.lora_magnitude_vector`]: [128] })).toEqual(["merged"]);
    expect(norms({ [`${linear}.lora_magnitude_vector.default.weight`]: [128] })).toEqual([
      "merged",
    ]);
  });
});

describe("scales without an alpha tensor", () => {
  const path = "mid_block.attentions.0.proj_in";
  const scaleWith = (metadata: Record<string, unknown> | null) => {
    const shapes = pair(`unet.${path}`, [128, 128], ".lora_B.weight", ".lora_A.weight");
    const notes: Record<string, string> =
      metadata === null ? {} : { lora_adapter_metadata: JSON.stringify(metadata) };
    return matchAdapter(headerOf(shapes, notes), golden).targets[0]!.scale;
  };

  test.each([
    [1, null],
    [4, { "unet.r": 2, "unet.lora_alpha": 8 }],
    [4, { r: 2, lora_alpha: 8 }],
    [1, { "text_encoder.r": 2, "text_encoder.lora_alpha": 8 }],
    [3, { "unet.lora_alpha": 8, "unet.alpha_pattern": { [path]: 6 } }],
    [3, { "unet.lora_alpha": 8, "unet.alpha_pattern": { "attentions.0.proj_in": 6 } }],
    [4, { "unet.lora_alpha": 8, "unet.alpha_pattern": { oj_in: 6, "^proj_in": 6 } }],
    [8 / Math.SQRT2, { "unet.lora_alpha": 8, "unet.use_rslora": true }],
    [1, { "unet.lora_alpha": "8" }],
  ])("%p with %p", (expected, metadata) => {
    expect(scaleWith(metadata)).toBeCloseTo(expected, 12);
  });

  test("a header with broken notes has none", () => {
    const shapes = pair(`unet.${path}`, [128, 128]);
    for (const text of ["", "{", "[]", "null", "7"]) {
      const header = headerOf(shapes, { lora_adapter_metadata: text });
      expect(matchAdapter(header, golden).targets[0]!.scale).toBe(1);
    }
  });
});

describe("refusals", () => {
  const attention = "transformer_blocks_0_attn2_to_k";
  const sdxl = `lora_unet_input_blocks_4_1_${attention}`;
  const files: [string, Record<string, number[]>, Record<string, string>?][] = [
    ["is a file without tensors, not a LoRA", {}],
    [
      "is a LoRA for Stable Diffusion 1.5, and changes nothing of this model, which has no " +
        `weights for lora_unet_down_blocks_0_attentions_0_${attention}.lora_down.weight.`,
      { [`lora_unet_down_blocks_0_attentions_0_${attention}.lora_down.weight`]: [2, 768] },
    ],
    [
      "is a LoRA for Stable Diffusion 1.5, and does not fit this model: lora_unet_mid_block_",
      pair(`lora_unet_mid_block_attentions_0_${attention}`, [128, 768]),
    ],
    ["is a LoRA for SDXL, and does not fit this model", pair(sdxl, [640, 2048])],
    ["is a LoRA for Flux,", pair("lora_unet_double_blocks_0_img_attn_proj", [8, 8])],
    [
      "is a LoRA for Stable Diffusion 3,",
      pair("lora_unet_joint_blocks_0_context_block_attn_qkv", [8, 8]),
    ],
    ["is a LoRA for Wan (videos),", pair("diffusion_model.blocks.0.self_attn.q", [8, 8])],
    ["is a LoRA for Qwen-Image,", pair("transformer_blocks.0.img_mlp.net.2", [8, 8])],
    ["is a LoRA for SSD-1B,", pair("lora_unet_x", [8, 8]), { ss_base_model_version: "ssd-1b" }],
    [
      "is a LoRA for a-new-model,",
      pair("lora_unet_x", [8, 8]),
      { "modelspec.architecture": "a-new-model/lora" },
    ],
    ["is a LoRA for a model that its header does not name,", pair("lora_unet_x", [8, 8])],
    [
      "is an adapter of the kind GLoRA (lora_unet_mid_block_attentions_0_proj_in.a1.weight), which",
      { "lora_unet_mid_block_attentions_0_proj_in.a1.weight": [2, 128] },
    ],
    [
      "is an adapter of the kind OFT or BOFT (",
      { "lora_unet_mid_block_attentions_0_proj_in.oft_blocks": [2, 64, 64] },
    ],
    ["is a ControlNet, not a LoRA", { lora_controlnet: [] }],
    ["supported yet.", { "controlnet_cond_embedding.conv_in.weight": [8] }],
    [
      "name it with --model.",
      {
        "model.diffusion_model.input_blocks.0.0.weight": [320, 4, 3, 3],
        "conditioner.embedders.0.x": [1],
      },
    ],
    ["name it with --embedding.", { clip_l: [1, 768], clip_g: [1, 1280] }],
    [
      "has factors that do not fit each other, and the model's weight is 128x128.",
      {
        "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": [128, 2],
        "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": [3, 128],
      },
    ],
    [
      "dora_scale has 64, and the model's weight is 128x128.",
      {
        ...pair("lora_unet_mid_block_attentions_0_proj_in", [128, 128]),
        "lora_unet_mid_block_attentions_0_proj_in.dora_scale": [64],
      },
    ],
  ];

  test.each(files)("%s", async (expected, shapes, metadata = {}) => {
    const message = await refusal(() => match(shapes, metadata), "bad-weights");
    expect(message).toStartWith(`${adapterPath} `);
    expect(message).toContain(expected);
    expect(message).toMatch(/^[^\n]+\.$/);
  });
});

describe("any header", () => {
  const dimension = fc.oneof(fc.integer({ min: 0, max: 4 }), fc.constantFrom(32, 64, 128, 2 ** 40));
  const endings = [
    ...spellings.flat(),
    ...[".alpha", ".dora_scale", ".lora_magnitude_vector", ".lora_mid.weight", ".diff", ".diff_b"],
    ...[".hada_w1_a", ".hada_w1_b", ".hada_w2_a", ".hada_w2_b", ".hada_t1", ".hada_t2"],
    ...[".lokr_w1", ".lokr_w1_a", ".lokr_w1_b", ".lokr_w2", ".lokr_w2_a", ".lokr_w2_b", ".lokr_t2"],
    ...[".set_weight", ".w_norm", ".b_norm", ".a1.weight", ".oft_blocks", ".lora_B.bias", ""],
  ];
  const base = fc.oneof(
    fc.constantFrom(...modules).map(({ path }) => `lora_unet_${path.replaceAll(".", "_")}`),
    fc.constantFrom(...modules).map(({ path }) => `unet.${path}`),
    fc.constantFrom("lora_unet_mid_block_attentions_0_proj_in", "lora_te1_", "", "a", "\u202e"),
    fc.string({ unit: "binary", maxLength: 30 }),
  );
  const key = fc.tuple(base, fc.constantFrom(...endings)).map(([name, ending]) => name + ending);
  const foreign = fc.dictionary(key, fc.array(dimension, { maxLength: 5 }), { maxKeys: 8 });
  const own = fc.constantFrom(...modules).map(({ path, weight }) => pair(path, [...weight.shape]));
  const mixed = fc.tuple(own, foreign).map(([first, second]) => ({ ...first, ...second }));
  const shapes = fc.oneof(foreign, mixed);
  const metadata = fc.dictionary(
    fc.constantFrom("lora_adapter_metadata", "ss_base_model_version", "modelspec.architecture"),
    fc.oneof(fc.string(), fc.json()),
    { maxKeys: 2 },
  );

  test("is matched or refused in one sentence", () => {
    let matched = 0;
    fc.assert(
      fc.property(shapes, metadata, (tensors, notes) => {
        const result = outcome(tensors, notes);
        if (typeof result !== "string") {
          matched += 1;
          for (const { scale } of result.targets) expect(Number.isFinite(scale)).toBe(true);
          return;
        }
        expect(result).toMatch(/^\S+\.safetensors [^\p{Cc}\u202e]{1,600}\.$/u);
      }),
      { numRuns: 10_000 },
    );
    expect(matched).toBeGreaterThan(100);
  }, 60_000);

  test("any key is split or not", () => {
    fc.assert(
      fc.property(fc.oneof(key, fc.string({ unit: "binary", maxLength: 2000 })), (text) => {
        const split = splitKey(text);
        if (split !== null) expect(text).toStartWith(split.base);
      }),
      { numRuns: 57_000 },
    );
  }, 60_000);
});

// --- internal ---

function match(
  shapes: Readonly<Record<string, readonly number[]>>,
  metadata: Readonly<Record<string, string>> = {},
): AdapterFile {
  return matchAdapter(headerOf(shapes, metadata), golden);
}

function pair(
  base: string,
  weight: number[],
  up = ".lora_up.weight",
  down = ".lora_down.weight",
): Record<string, number[]> {
  return factorsFor(weight, base + up, base + down);
}

/** What was matched, or the sentence of the refusal; everything else is thrown on. */
function outcome(tensors: Record<string, number[]>, notes: Record<string, string>) {
  try {
    return match(tensors, notes);
  } catch (error) {
    if (error instanceof BasedXLError && error.code === "bad-weights") return error.message;
    throw error;
  }
}
