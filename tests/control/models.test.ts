/**
 * Finding and opening model folders. Each unsupported setting has its own message: the tables below
 * change one key of the reference model and check the message's key words.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { unetShapes } from "../../src/bench/support/unet-shapes.ts";
import { parseClipConfig, parseUnetConfig, parseVaeConfig } from "../../src/models/config.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import { PromptEncoder } from "../../src/pipeline/prompts.ts";
import { planRequest } from "../../src/pipeline/request.ts";
import { resources } from "../../src/resources.ts";
import { type Changes, changedModel, golden } from "../support/linked-model.ts";
import { refusal } from "../support/refusal.ts";

const wide = join(import.meta.dir, "../fixtures/wide/model");
const readJson = (path: string) => JSON.parse(readFileSync(path, "utf8"));

const root = mkdtempSync(join(tmpdir(), "basedxl-models-"));
// Removing some hundred files takes seconds on a busy disk.
setDefaultTimeout(60_000);
afterAll(() => rmSync(root, { recursive: true, force: true }));

const unet = "unet/config.json";
const vae = "vae/config.json";
const scheduler = "scheduler/scheduler_config.json";

/** A changed copy of the reference model. */
const modelWith = (changes: Changes) => changedModel(root, changes);

/** Transformer layers of the golden UNet's three down blocks and of its up blocks. */
const depths = (down: unknown[], up: unknown[] = [2, 1, 1]) => ({
  transformer_layers_per_block: down,
  reverse_transformer_layers_per_block: up,
});

/** SDXL's own UNet config, without the depths of its attentions. */
const sdxlBlocks = {
  addition_embed_type: "text_time",
  addition_time_embed_dim: 256,
  attention_head_dim: [5, 10, 20],
  block_out_channels: [320, 640, 1280],
  cross_attention_dim: 2048,
  down_block_types: ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
  projection_class_embeddings_input_dim: 2816,
  up_block_types: ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
  use_linear_projection: true,
};

describe("folders that open", () => {
  test("the reference model", async () => {
    const model = await openModelFolder(golden);
    expect(model).toMatchObject({
      path: golden,
      name: "model",
      clip: { hiddenSize: 64, layerCount: 3, headCount: 2, hiddenAct: "quick_gelu" },
      clip2: { hiddenSize: 128, hiddenAct: "gelu", projectionSize: 128, eosTokenId: 821 },
      unet: {
        blockOutChannels: [32, 64, 128],
        layersPerBlock: [2, 2, 2],
        downTransformerLayers: [[], [1, 1], [2, 2]],
        midBlock: "cross_attention",
        midTransformerLayers: 2,
        upTransformerLayers: [[2, 2, 2], [1, 1, 1], []],
        headCounts: [1, 1, 2],
        crossAttentionDim: 192,
        flipSinToCos: true,
        additionTimeEmbedDim: 32,
        additionInputDim: 320,
      },
      vae: { blockOutChannels: [32, 32, 64, 64], scalingFactor: 0.13025, midAttention: true },
      scheduler: { className: "EulerDiscreteScheduler", timestepSpacing: "leading" },
      forceZerosForEmptyPrompt: true,
      defaults: {},
      vaeFactor: 8,
      sizeMultiple: 32,
      nativeSize: { width: 256, height: 256 },
    });
    expect(model.clip!.projectionSize).toBe(0);
    expect(model.weights.unet.files).toEqual([
      join(golden, "unet/diffusion_pytorch_model.safetensors"),
    ]);
    expect(model.tokenizer2.encode("a").ids.at(-1)).toBe(0);
  });

  test("the bundled model, with its own prompt, size and steps", async () => {
    const model = await openModelFolder(resources.bundledModel());
    expect(model.name).toBe("mini-sdxl");
    expect(model.defaults).toEqual({
      prompt: "a red house left of a green tree on the grass",
      width: 256,
      height: 256,
      steps: 25,
      guidanceScale: 4,
    });
    expect(model.nativeSize).toEqual({ width: 256, height: 256 });
  });

  test("a model whose every size differs", () => {
    const config = (part: string) => {
      const path = join(wide, part, "config.json");
      return [path, readJson(path)] as const;
    };
    expect(parseUnetConfig(...config("unet"))).toMatchObject({
      inChannels: 8,
      blockOutChannels: [48, 96],
      layersPerBlock: [1, 3],
      downTransformerLayers: [[1], [2, 2, 2]],
      upTransformerLayers: [
        [2, 2, 2, 2],
        [1, 1],
      ],
      headCounts: [1, 2],
      normGroups: 12,
      flipSinToCos: false,
      freqShift: 1,
    });
    expect(parseVaeConfig(...config("vae"))).toMatchObject({
      latentChannels: 8,
      blockOutChannels: [24, 40, 56],
      layersPerBlock: 2,
    });
    expect(parseClipConfig(...config("text_encoder_2"), true)).toMatchObject({
      layerCount: 4,
      projectionSize: 80,
      eosTokenId: 2,
    });
  });

  test("SDXL's own UNet config, and numbers in place of lists", () => {
    const sdxl = {
      ...sdxlBlocks,
      transformer_layers_per_block: [1, 2, 10],
      upcast_attention: null,
    };
    const parsed = parseUnetConfig("config.json", sdxl);
    expect(parsed).toMatchObject({
      downTransformerLayers: [[], [2, 2], [10, 10]],
      midTransformerLayers: 10,
      upTransformerLayers: [[10, 10, 10], [2, 2, 2], []],
      layersPerBlock: [2, 2, 2],
      normGroups: 32,
      normEps: 1e-5,
      sampleSize: 128,
      flipSinToCos: true,
    });
    const even = parseUnetConfig("config.json", {
      ...sdxl,
      attention_head_dim: [1, 1, 1],
      num_attention_heads: 4,
      transformer_layers_per_block: 3,
      reverse_transformer_layers_per_block: [5, 6, 7],
      layers_per_block: [1, 2, 3],
      sample_size: [96, 96],
    });
    expect(even).toMatchObject({
      headCounts: [4, 4, 4],
      downTransformerLayers: [[], [3, 3], [3, 3, 3]],
      upTransformerLayers: [[5, 5, 5, 5], [6, 6, 6], []],
      layersPerBlock: [1, 2, 3],
      sampleSize: 96,
    });
  });

  test("the UNet configs of distilled models", () => {
    const parsed = (more: Record<string, unknown>) =>
      parseUnetConfig("config.json", { ...sdxlBlocks, ...more });
    const millions = (more: Record<string, unknown>) =>
      unetShapes(parsed(more))
        .values()
        .reduce((sum, shape) => sum + shape.reduce((a, b) => a * b) / 1e6, 0);
    const ssd1b = {
      mid_block_type: "UNetMidBlock2D",
      transformer_layers_per_block: [1, [2, 2], [4, 4]],
      reverse_transformer_layers_per_block: [[4, 4, 10], [2, 1, 1], 1],
    };
    expect(parsed(ssd1b)).toMatchObject({
      downTransformerLayers: [[], [2, 2], [4, 4]],
      midBlock: "resnet",
      midTransformerLayers: 0,
      upTransformerLayers: [[4, 4, 10], [2, 1, 1], []],
    });
    // One block with attention in the middle has the first depth of the last down block.
    expect(parsed({ ...ssd1b, mid_block_type: "UNetMidBlock2DCrossAttn" })).toMatchObject({
      midBlock: "cross_attention",
      midTransformerLayers: 4,
    });
    const vega = { transformer_layers_per_block: [0, 1, 2], mid_block_type: "UNetMidBlock2D" };
    expect(parsed(vega)).toMatchObject({
      downTransformerLayers: [[], [1, 1], [2, 2]],
      midBlock: "resnet",
      upTransformerLayers: [[2, 2, 2], [1, 1, 1], []],
    });
    const koala = { layers_per_block: 1, transformer_layers_per_block: [1, 2, 5] };
    expect(parsed({ ...koala, mid_block_type: null })).toMatchObject({
      downTransformerLayers: [[], [2], [5]],
      midBlock: "none",
      midTransformerLayers: 0,
      upTransformerLayers: [[5, 5], [2, 2], []],
    });
    const large = { ...koala, transformer_layers_per_block: [1, 2, 6] };
    expect(parsed(large)).toMatchObject({ midBlock: "cross_attention", midTransformerLayers: 6 });
    // KOALA's model cards: 54 % and 69 % less than SDXL; SSD-1B has 1.3 billion parameters.
    expect(millions(ssd1b)).toBeCloseTo(1331, -1);
    expect(millions(vega)).toBeCloseTo(745, 0);
    expect(millions({ ...koala, mid_block_type: null })).toBeCloseTo(783, 0);
    expect(millions(large)).toBeCloseTo(1161, 0);
    expect(millions({ transformer_layers_per_block: [1, 2, 10] })).toBeCloseTo(2567, -1);
  });

  describe("models that need an image", () => {
    const kindOf = async (changes: Changes) => {
      const model = await openModelFolder(modelWith(changes));
      const refused = await refusal(() => planRequest({ prompt: "a" }, model, 1), "bad-model");
      return { model, refused };
    };

    test("a refiner has one text encoder and five time ids", async () => {
      const { model, refused } = await kindOf({
        "model_index.json": {
          _class_name: "StableDiffusionXLImg2ImgPipeline",
          requires_aesthetics_score: true,
          text_encoder: [null, null],
          tokenizer: [null, null],
        },
        [unet]: { cross_attention_dim: 128, projection_class_embeddings_input_dim: 288 },
      });
      expect(model).toMatchObject({ kind: "refiner", clip: null, tokenizer: null });
      expect(model.weights.textEncoder.files).toEqual([]);
      expect(nativeModelOf(model).config).toMatchObject({
        text: { textEncoder: { isPresent: 0 }, textEncoder2: { isPresent: 1 } },
        unet: { timeIdCount: 5 },
      });
      expect(refused).toMatch(/^The model \S+ is a refiner, .* from text alone it cannot generate/);
    });

    test("an inpainting UNet reads nine channels", async () => {
      const { model, refused } = await kindOf({
        "model_index.json": { _class_name: "StableDiffusionXLInpaintPipeline" },
        [unet]: { in_channels: 9 },
      });
      expect(model.kind).toBe("inpainting");
      expect(refused).toMatch(/^The model \S+ is for inpainting, .* from text alone it cannot/);
    });
  });

  test("a model with the second text encoder alone reads prompts by it", async () => {
    const alone = modelWith({
      "model_index.json": { text_encoder: [null, null] },
      [unet]: { cross_attention_dim: 128 },
    });
    const model = await openModelFolder(alone);
    expect(model).toMatchObject({ kind: "base", clip: null });
    const { ids, ids2 } = new PromptEncoder(model, () => {}).prompt("a red circle");
    expect(ids.length).toBe(0);
    expect(ids2).toEqual(model.tokenizer2.encode("a red circle").ids);
  });

  test("without its first text encoder a base model lacks part of its text", async () => {
    const half = modelWith({ "model_index.json": { text_encoder: [null, null] } });
    const sentence = await refusal(() => openModelFolder(half), "bad-model");
    expect(sentence).toEndWith("cross_attention_dim is 192, but the text encoder gives 128.");
  });

  test("keys that are left out mean diffusers' defaults", async () => {
    const folder = modelWith({
      "model_index.json": { force_zeros_for_empty_prompt: undefined },
      "scheduler/scheduler_config.json": '{"_class_name": "DDIMScheduler"}',
      "vae/config.json": {
        latent_channels: undefined,
        use_quant_conv: false,
        sample_size: [64, 64],
      },
    });
    const model = await openModelFolder(folder);
    expect(model.forceZerosForEmptyPrompt).toBe(true);
    expect(model.scheduler).toMatchObject({
      betaStart: 0.0001,
      betaEnd: 0.02,
      betaSchedule: "linear",
      timestepSpacing: null,
      stepsOffset: 0,
      clipSample: null,
    });
    expect(model.vae).toMatchObject({ latentChannels: 4, useQuantConv: false, sampleSize: 64 });
  });

  test("a native size that the model cannot generate becomes the next valid one", async () => {
    const model = await openModelFolder(modelWith({ "unet/config.json": { sample_size: 30 } }));
    expect(model.nativeSize).toEqual({ width: 256, height: 256 });
  });
});

/** file, keys to change, what the sentence must contain besides the file's name. */
type Refused = [string, Record<string, unknown>, RegExp];

const refused: Refused[] = [
  [
    unet,
    { class_embed_type: "timestep" },
    /class_embed_type is "timestep", which is not supported/,
  ],
  [unet, { addition_embed_type: "text" }, /addition_embed_type is "text".*"text_time" is/],
  [unet, { addition_embed_type: null }, /addition_embed_type is missing.*"text_time"/],
  [unet, { dual_cross_attention: true }, /dual_cross_attention is true.*false is/],
  [unet, { only_cross_attention: [true, false, false] }, /only_cross_attention is \[true,/],
  [unet, { resnet_time_scale_shift: "scale_shift" }, /resnet_time_scale_shift is "scale_shift"/],
  [unet, { act_fn: "mish" }, /act_fn is "mish"/],
  [
    unet,
    { down_block_types: ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"] },
    /AttnDownBlock2D/,
  ],
  [unet, { up_block_types: ["UpBlock2D"] }, /up_block_types has 1 entries, .* has 3/],
  [
    unet,
    { mid_block_type: "UNetMidBlock2DSimpleCrossAttn" },
    /mid_block_type is "UNet.*CrossAttn"/,
  ],
  [unet, { mid_block_type: [] }, /mid_block_type is \[\], which is not supported/],
  [unet, { norm_eps: null }, /norm_eps is null, which is not supported/],
  [unet, { layers_per_block: null }, /layers_per_block is null/],
  [unet, { conv_in_kernel: 5 }, /conv_in_kernel is 5, which is not supported; 3 is/],
  [unet, { conv_out_kernel: 1 }, /conv_out_kernel is 1/],
  [unet, { encoder_hid_dim: 64 }, /encoder_hid_dim is 64.*null is/],
  [unet, { time_cond_proj_dim: 256 }, /time_cond_proj_dim is 256/],
  [unet, { time_embedding_type: "fourier" }, /time_embedding_type is "fourier"/],
  [unet, { center_input_sample: true }, /center_input_sample is true/],
  [unet, { attention_type: "gated" }, /attention_type is "gated"/],
  [unet, { use_linear_projection: undefined }, /use_linear_projection is not true/],
  [unet, { attention_head_dim: [1, 3, 2] }, /number of heads\) 3 does not divide 64 channels/],
  [unet, { attention_head_dim: [1, 2] }, /attention_head_dim has 2 entries, .* 3 levels/],
  [unet, { attention_head_dim: "8" }, /attention_head_dim is "8", but it must be a number, or one/],
  [unet, { norm_num_groups: 12 }, /norm_num_groups 12 does not divide block_out_channels 32/],
  [unet, { norm_num_groups: null }, /norm_num_groups is null/],
  [unet, { transformer_layers_per_block: [1, 1] }, /transformer_layers_per_block has 2 entries/],
  [unet, { transformer_layers_per_block: [1, [1, 1], 2] }, /needs reverse_transformer_layers_per/],
  [unet, depths([1, [1], 2]), /: transformer_layers_per_block has \[1\] for .* 2 attentions/],
  [unet, depths([1, 1, []]), /: transformer_layers_per_block has \[\] for .* 2 attentions/],
  [unet, depths([1, 0, 2]), /: transformer_layers_per_block has 0 for a block with attention/],
  [unet, depths([1, 1, "2"]), /: transformer_layers_per_block is \[1,1,"2"\], but it must be/],
  [unet, depths([1, [1, [1]], 2]), /: transformer_layers_per_block is \[1,\[1,\[1\]\],2\], but/],
  [unet, depths([1, [1, null], 2]), /: transformer_layers_per_block is \[1,\[1,null\],2\], but/],
  [unet, depths([1, 1.5, 2]), /: transformer_layers_per_block is \[1,1.5,2\], but/],
  [unet, { transformer_layers_per_block: null }, /transformer_layers_per_block is null/],
  [unet, { reverse_transformer_layers_per_block: [1] }, /reverse_transformer.* has 1 entries/],
  [unet, { reverse_transformer_layers_per_block: 2 }, /reverse_transformer.* is 2, but/],
  [unet, depths([1, 1, 2], [[2, 2], 1, 1]), /: reverse_.* has \[2,2\] for .* 3 attentions/],
  [unet, depths([1, 1, 2], [[2, 2, 0], 1, 1]), /: reverse_.* has 0 for a block with attention/],
  [unet, { layers_per_block: 8 }, /layers_per_block is 8, but at most 7 is supported/],
  [unet, { block_out_channels: [] }, /block_out_channels has 0 levels, but 1 to 8/],
  [unet, { block_out_channels: [32, 6.5] }, /must be a whole number from 1 to/],
  [unet, { cross_attention_dim: [192, 192, 64] }, /cross_attention_dim is \[192,192,64\]/],
  [unet, { cross_attention_dim: 200 }, /is 200, but the two text encoders give 64 \+ 128 = 192/],
  [
    unet,
    { projection_class_embeddings_input_dim: 300 },
    /is 300, but six sizes of 32 .* make 320 \(five, .* 288\)/,
  ],
  [unet, { addition_time_embed_dim: undefined }, /addition_time_embed_dim is missing/],
  [
    unet,
    { in_channels: 5 },
    /in_channels is 5, .* 4 latent channels \(an inpainting model reads 9/,
  ],
  [unet, { out_channels: 8 }, /out_channels is 8, but the VAE has 4 latent channels/],
  [unet, { sample_size: [32, 64] }, /sample_size is \[32,64\], which is not supported/],
  [unet, { _class_name: "UNet2DModel" }, /_class_name is "UNet2DModel"/],
  [vae, { latents_mean: [0, 0, 0, 0.1] }, /latents_mean is \[0,0,0,0\.1\], .*null or 0s are/],
  [vae, { latents_std: [1, 1, 1, 5] }, /latents_std is .*null or 1s are/],
  [vae, { quantization_config: { quant_method: "gguf" } }, /quantization_config is \{"quant_met/],
  [unet, { quantization_config: { bits: 4 } }, /quantization_config is \{"bits":4\}/],
  ["text_encoder/config.json", { quantization_config: {} }, /quantization_config is \{\}/],
  [unet, { time_embedding_dim: 64 }, /time_embedding_dim is 64, which is not supported; 128 is/],
  [unet, { class_embeddings_concat: true }, /class_embeddings_concat is true/],
  [vae, { shift_factor: 0.1 }, /shift_factor is 0\.1/],
  [vae, { act_fn: "relu" }, /act_fn is "relu"/],
  [vae, { norm_num_groups: 24 }, /norm_num_groups 24 does not divide block_out_channels 32/],
  [
    vae,
    { up_block_types: ["AttnUpDecoderBlock2D"] },
    /AttnUpDecoderBlock2D, which is not supported/,
  ],
  [vae, { down_block_types: ["DownEncoderBlock2D"] }, /down_block_types has 1 entries/],
  [vae, { in_channels: 4 }, /in_channels is 4; RGB needs 3/],
  [vae, { scaling_factor: 0 }, /scaling_factor is 0, but it must be more than 0/],
  [vae, { scaling_factor: 1e300 }, /scaling_factor is 1e\+300, .* that 32 bits can hold/],
  [unet, { norm_eps: 1e-60 }, /norm_eps is 1e-60, .* that 32 bits can hold/],
  [vae, { _class_name: "AutoencoderTiny" }, /_class_name is "AutoencoderTiny"/],
  [vae, { use_quant_conv: "yes" }, /use_quant_conv is "yes", but it must be true or false/],
  [
    "text_encoder/config.json",
    { hidden_act: "relu" },
    /hidden_act is "relu", .*"quick_gelu", "gelu"/,
  ],
  ["text_encoder/config.json", { num_attention_heads: 3 }, /num_attention_heads 3 does not divide/],
  ["text_encoder/config.json", { max_position_embeddings: 64 }, /is 64, but prompts are 77/],
  ["text_encoder_2/config.json", { max_position_embeddings: 248 }, /is 248, but prompts are 77/],
  ["text_encoder/config.json", { num_hidden_layers: 1 }, /num_hidden_layers is 1, but at least 2/],
  ["text_encoder/config.json", { architectures: ["T5EncoderModel"] }, /T5EncoderModel, but SDXL/],
  ["text_encoder/config.json", { model_type: "siglip_text_model" }, /model_type is "siglip_text/],
  [scheduler, { beta_start: null }, /beta_start is null, which is not supported/],
  [scheduler, { timestep_spacing: null }, /timestep_spacing is null/],
  [vae, { scaling_factor: null }, /scaling_factor is null/],
  ["text_encoder/config.json", { hidden_act: null }, /hidden_act is null/],
  [scheduler, { prediction_type: "sample_v" }, /prediction_type is "sample_v"/],
  [scheduler, { final_sigmas_type: "last" }, /final_sigmas_type is "last"/],
  [scheduler, { rescale_betas_zero_snr: "yes" }, /rescale_betas_zero_snr is "yes"/],
  [scheduler, { use_flow_sigmas: true }, /flow matching \(use_flow_sigmas\) is a parametrisation/],
  [scheduler, { variance_type: "learned_range" }, /a learned variance .*"learned_range"/],
  [scheduler, { prediction_type: "flow_prediction" }, /prediction_type is "flow_prediction"/],
  [scheduler, { beta_schedule: "sigmoid" }, /beta_schedule is "sigmoid", but it must be one of/],
  [scheduler, { prediction_type: "flow" }, /prediction_type is "flow".*"epsilon"/],
  [scheduler, { timestep_spacing: "even" }, /timestep_spacing is "even".*"leading"/],
  [scheduler, { beta_start: 0.5 }, /beta_start 0\.5 to beta_end 0\.012 must rise/],
  [scheduler, { trained_betas: [0.1] }, /trained_betas has 1 entries, not 1000/],
  [scheduler, { num_train_timesteps: 1 }, /num_train_timesteps is 1/],
  [
    "model_index.json",
    { _class_name: "FluxPipeline" },
    /FluxPipeline, .*StableDiffusionXLPipeline is/,
  ],
  ["model_index.json", { text_encoder_2: [null, null] }, /the model has no text_encoder_2/],
  ["model_index.json", { tokenizer: [null, null] }, /the model has no tokenizer, which/],
  ["model_index.json", { scheduler: [null, null] }, /no scheduler/],
  [
    "model_index.json",
    { scheduler: "EulerDiscreteScheduler" },
    /scheduler is .*library and a class/,
  ],
  [
    "model_index.json",
    { vae: ["diffusers", "AutoencoderTiny"] },
    /vae is a AutoencoderTiny.*KL is/,
  ],
  [
    "model_index.json",
    { unet: ["my_unet", "UNet2DConditionModel"] },
    /unet is a UNet2DConditionModel of "my_unet", .*that of diffusers is/,
  ],
  [
    "model_index.json",
    { scheduler: ["diffusers_modules.local.x", "EulerDiscreteScheduler"] },
    /scheduler is a EulerDiscreteScheduler of "diffusers_modules/,
  ],
  ["model_index.json", { tokenizer: [null, "CLIPTokenizer"] }, /tokenizer is .* of null/],
  ["model_index.json", { vae: ["diffusers", "AutoencoderKL", "x"] }, /vae is .*a class/],
  ["model_index.json", { unet: ["diffusers", "UNetMotionModel"] }, /unet is a UNetMotionModel/],
  [
    "model_index.json",
    { tokenizer: ["transformers", "T5Tokenizer"] },
    /tokenizer is a T5Tokenizer/,
  ],
  [
    "model_index.json",
    { text_encoder_2: ["transformers", "CLIPTextModel"] },
    /text_encoder_2 is a CLIPTextModel, .*CLIPTextModelWithProjection is/,
  ],
];

describe("settings that are refused, each by its name", () => {
  for (const [file, change, sentence] of refused) {
    test(`${file} ${JSON.stringify(change)}`, async () => {
      const folder = modelWith({ [file]: change });
      const message = await refusal(() => openModelFolder(folder), "bad-model");
      expect(message).toMatch(sentence);
      expect(message).toStartWith(join(folder, file));
      expect(message).toEndWith(".");
    });
  }

  test("a text encoder that knows fewer tokens than its tokenizer", async () => {
    const folder = modelWith({ "text_encoder_2/config.json": { vocab_size: 800 } });
    const message = await refusal(() => openModelFolder(folder), "bad-model");
    expect(message).toMatch(/tokenizer_2 has token ids up to 821, .* only 800 tokens/);
  });

  test("a number too large for JSON", async () => {
    const text = readFileSync(join(golden, unet), "utf8").replace(
      '"norm_eps": 1e-05',
      '"norm_eps": 1e999',
    );
    const message = await refusal(() => openModelFolder(modelWith({ [unet]: text })), "bad-model");
    expect(message).toMatch(/norm_eps is Infinity, but it must be a number/);
  });
});

describe("folders that are not whole", () => {
  test("no folder", async () => {
    const message = await refusal(() => openModelFolder(join(root, "none")), "bad-model");
    expect(message).toMatch(/none does not exist; name a diffusers folder/);
  });
  test("a file", async () => {
    const message = await refusal(
      () => openModelFolder(join(golden, "model_index.json")),
      "bad-model",
    );
    expect(message).toMatch(/is a file, not a folder/);
  });
  for (const file of ["model_index.json", unet, vae, scheduler, "tokenizer/vocab.json"]) {
    test(`no ${file}`, async () => {
      const folder = modelWith({ [file]: null });
      const message = await refusal(() => openModelFolder(folder), "bad-model");
      expect(message).toStartWith(`${join(folder, file)} does not exist`);
    });
  }
  test("a config that is cut off", async () => {
    const message = await refusal(
      () => openModelFolder(modelWith({ [unet]: '{"act_fn":' })),
      "bad-model",
    );
    expect(message).toMatch(/unet\/config\.json is not valid JSON .*download the file again/);
  });
  test("a config that is a list", async () => {
    const message = await refusal(() => openModelFolder(modelWith({ [vae]: "[]" })), "bad-model");
    expect(message).toMatch(/vae\/config\.json must hold a JSON object/);
  });
});

describe("basedxl.json", () => {
  const defaultsWith = async (defaults: unknown) => {
    const folder = modelWith({ "basedxl.json": JSON.stringify(defaults) });
    return (await openModelFolder(folder)).defaults;
  };
  test("says as much as it wants", async () => {
    expect(await defaultsWith({})).toEqual({});
    expect(await defaultsWith({ steps: 4, width: 96 })).toEqual({ steps: 4, width: 96 });
  });
  for (const [defaults, sentence] of [
    [
      { widht: 64 },
      /widht is no key of this file; prompt, width, height, steps, guidanceScale are/,
    ],
    [{ width: 100 }, /width is 100, but it must be a multiple of 32/],
    [{ steps: 1001 }, /steps is 1001, but it must be at most 1000/],
    [{ guidanceScale: -1 }, /guidanceScale is -1, but it must be 0 or more/],
    [{ prompt: 5 }, /prompt is 5, but it must be text/],
    [[], /must hold a JSON object/],
  ] as const) {
    test(`refuses ${JSON.stringify(defaults)}`, async () => {
      const message = await refusal(() => defaultsWith(defaults), "bad-model");
      expect(message).toMatch(/basedxl\.json/);
      expect(message).toMatch(sentence);
    });
  }
});

describe("weights of a whole model", () => {
  test("a missing weight file is reported with its component", async () => {
    const folder = modelWith({ "vae/diffusion_pytorch_model.safetensors": null });
    const message = await refusal(() => openModelFolder(folder), "bad-weights");
    expect(message).toStartWith(`${join(folder, "vae")} has no weights`);
  });

  test("a model of fp16 variants opens", async () => {
    const folder = modelWith({});
    const path = (name: string) =>
      join(folder, "unet", `diffusion_pytorch_model${name}.safetensors`);
    renameSync(path(""), path(".fp16"));
    expect((await openModelFolder(folder)).weights.unet.files).toEqual([path(".fp16")]);
  });
});
