/**
 * Settings of models that diffusers reads in a way of its own: which file names the sampler, which
 * values change nothing, and what no setting of this version can follow.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { type Changes, changedModel, golden } from "../support/linked-model.ts";
import { refusal } from "../support/refusal.ts";

const root = mkdtempSync(join(tmpdir(), "basedxl-settings-"));
// Removing some hundred files takes seconds on a busy disk.
setDefaultTimeout(60_000);
afterAll(() => rmSync(root, { recursive: true, force: true }));

const readJson = (path: string) => JSON.parse(readFileSync(path, "utf8"));
const modelWith = (changes: Changes) => changedModel(root, changes);
const unet = "unet/config.json";
const vae = "vae/config.json";
const scheduler = "scheduler/scheduler_config.json";

describe("settings that change nothing at the value they have", () => {
  const clip = "text_encoder/config.json";
  const neutral: [string, Record<string, unknown>][] = [
    [unet, { act_fn: "SiLU" }],
    [unet, { only_cross_attention: [false, false, false] }],
    [unet, { mid_block_only_cross_attention: true, cross_attention_norm: "layer_norm" }],
    [unet, { resnet_skip_time_act: true, resnet_out_scale_factor: 1.4 }],
    [unet, { time_embedding_dim: 128, addition_embed_type_num_heads: 32, upcast_attention: true }],
    [unet, { dropout: 0.1, a_key_of_tomorrow: { nested: [1] }, quantization_config: null }],
    [unet, { dual_cross_attention: null, conv_in_kernel: 3, mid_block_scale_factor: 1 }],
    [vae, { latents_mean: [0, 0, 0, 0], latents_std: [1, 1, 1, 1], shift_factor: 0 }],
    [vae, { latents_mean: [0, 0, 0, 0], act_fn: "swish", force_upcast: false, foo: 1 }],
    [clip, { architectures: ["CLIPTextModelWithProjection"] }],
    [clip, { architectures: ["CLIPModel"], model_type: "clip", logit_scale_init_value: 2.6 }],
    [clip, { attention_dropout: 0.1, initializer_factor: 2, pad_token_id: 7, unknown: null }],
    ["text_encoder_2/config.json", { architectures: ["CLIPTextModel"] }],
    ["text_encoder_2/config.json", { architectures: [] }],
    ["text_encoder_2/config.json", { architectures: null, text_config: null }],
    [unet, { reverse_transformer_layers_per_block: null, num_attention_heads: null }],
    [unet, { only_cross_attention: null }],
    [scheduler, { variance_type: null, trained_betas: null, sigma_min: null, sigma_max: null }],
    [
      scheduler,
      { clip_sample_range: 2, sample_max_value: 9, dynamic_thresholding_ratio: 1, foo: "bar" },
    ],
    ["model_index.json", { feature_extractor: [null, null], requires_aesthetics_score: true }],
  ];
  for (const [file, change] of neutral) {
    test(`${file} ${JSON.stringify(change)}`, async () => {
      const { path, ...model } = await openModelFolder(modelWith({ [file]: change }));
      const { path: goldenPath, ...wanted } = await openModelFolder(golden);
      for (const part of ["clip", "clip2", "unet", "vae", "scheduler"] as const) {
        expect(model[part]).toEqual(wanted[part] as never);
      }
      expect(path).not.toBe(goldenPath);
    });
  }

  test("the text encoder in the config of a whole CLIP", async () => {
    const own = readJson(join(golden, clip));
    const whole = { model_type: "clip", projection_dim: 768, text_config: own, vision_config: {} };
    const folder = modelWith({
      [clip]: JSON.stringify({ architectures: ["CLIPModel"], ...whole }),
    });
    expect((await openModelFolder(folder)).clip).toEqual((await openModelFolder(golden)).clip);
  });
});

describe("the sampler of a model", () => {
  const opened = async (index: string | undefined, file: string | undefined, more = {}) => {
    const named = index === undefined ? undefined : ["diffusers", index];
    const folder = modelWith({
      "model_index.json": { scheduler: named },
      "scheduler/scheduler_config.json": { _class_name: file, ...more },
    });
    return (await openModelFolder(folder)).scheduler;
  };
  const [euler, ddim, heun] = ["EulerDiscrete", "DDIM", "HeunDiscrete"].map((s) => `${s}Scheduler`);

  test("has the class that model_index.json names and the settings of its file", async () => {
    for (const [index, file, wanted] of [
      [ddim, euler, ddim],
      [euler, heun, euler],
      [heun, undefined, heun],
      [undefined, ddim, ddim],
    ]) {
      const settings = { beta_end: 0.013, timestep_spacing: "trailing" };
      const scheduler = await opened(index, file, settings);
      expect(scheduler).toMatchObject({ className: wanted, betaEnd: 0.013 });
      expect(scheduler.timestepSpacing).toBe("trailing");
    }
    const message = await refusal(() => opened(undefined, undefined), "bad-model");
    expect(message).toMatch(/_class_name is missing/);
  });

  test("another parametrisation is refused, whichever file names it", async () => {
    for (const other of [
      "EDMEulerScheduler",
      "EDMDPMSolverMultistepScheduler",
      "FlowMatchEulerDiscreteScheduler",
      "FlowMatchHeunDiscreteScheduler",
      "FlowMatchLCMScheduler",
      "CosineDPMSolverMultistepScheduler",
      "CMStochasticIterativeScheduler",
      "IPNDMScheduler",
      "ScoreSdeVeScheduler",
      "UnCLIPScheduler",
    ]) {
      for (const [index, file] of [
        [other, other],
        [euler, other],
        [other, euler],
        [undefined, other],
      ]) {
        const message = await refusal(() => opened(index, file), "bad-model");
        expect(message).toContain(`that of ${other} is a parametrisation that is not supported`);
      }
    }
  });

  test("keys that only repeat the saving class' defaults leave the sampler its own", async () => {
    const unset = { _use_default_values: ["timestep_spacing", "clip_sample", "steps_offset"] };
    const scheduler = await opened(ddim, euler, { clip_sample: false, ...unset });
    expect(scheduler).toMatchObject({ clipSample: null, timestepSpacing: null, stepsOffset: 0 });
  });

  test("null switches a thing off, as in Python", async () => {
    const off = { set_alpha_to_one: null, use_karras_sigmas: null };
    const scheduler = await opened(ddim, ddim, off);
    expect(scheduler).toMatchObject({ setAlphaToOne: false });
    expect(scheduler.sigmaKind).toBe("normal");
    const folder = modelWith({
      "model_index.json": { force_zeros_for_empty_prompt: null },
      "vae/config.json": { mid_block_add_attention: null },
    });
    const model = await openModelFolder(folder);
    expect(model.forceZerosForEmptyPrompt).toBe(false);
    expect(model.vae.midAttention).toBe(false);
  });
});
