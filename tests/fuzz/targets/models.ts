/**
 * Files of models: configs, headers of safetensors and the keys in them.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { identify } from "../../../src/adapters/identify.ts";
import {
  parseClipConfig,
  parseSchedulerConfig,
  parseUnetConfig,
  parseVaeConfig,
} from "../../../src/models/config.ts";
import { parseSafetensorsHeader } from "../../../src/models/safetensors-header.ts";
import { classifyHeader } from "../../../src/models/single-file/classify.ts";
import { makeSchedule, samplerOfModel } from "../../../src/schedule.ts";
import { golden } from "../../support/linked-model.ts";
import { mutateBytes, mutateJson } from "../mutate.ts";
import type { Random } from "../random.ts";
import { target } from "../target.ts";

const read = (path: string) => JSON.parse(readFileSync(join(golden, path), "utf8"));

const configs = {
  unet: { json: read("unet/config.json"), parse: (json: unknown) => parseUnetConfig("FILE", json) },
  vae: { json: read("vae/config.json"), parse: (json: unknown) => parseVaeConfig("FILE", json) },
  clip: {
    json: read("text_encoder/config.json"),
    parse: (json: unknown) => parseClipConfig("FILE", json, false),
  },
  scheduler: {
    json: read("scheduler/scheduler_config.json"),
    parse: (json: unknown) => {
      const config = parseSchedulerConfig("FILE", json);
      // A schedule of 2^24 training timesteps takes a second.
      if (config.trainTimesteps > 4096) return;
      makeSchedule(samplerOfModel(config).name, config, { stepCount: 2 });
    },
  },
} as const;

const names = Object.keys(configs) as (keyof typeof configs)[];

export const configTarget = target(
  "configs",
  (random) => {
    const name = random.pick(names);
    return { name, text: mutateJson(random, configs[name].json) };
  },
  ({ name, text }) => {
    const json = parsed(text);
    if (json !== undefined) configs[name].parse(json);
  },
);

const headers = [
  {
    "lora_unet_a.lora_up.weight": { dtype: "F16", shape: [4, 2], data_offsets: [0, 16] },
    "lora_unet_a.lora_down.weight": { dtype: "F16", shape: [2, 4], data_offsets: [16, 32] },
    "lora_unet_a.alpha": { dtype: "F32", shape: [], data_offsets: [32, 36] },
    __metadata__: { ss_network_module: "networks.lora", ss_base_model_version: "sdxl_base_v1-0" },
  },
  {
    "unet.a.lora_A.default.weight": { dtype: "BF16", shape: [2, 4], data_offsets: [0, 16] },
    "unet.a.lora_B.default.weight": { dtype: "BF16", shape: [4, 2], data_offsets: [16, 32] },
  },
  {
    "model.diffusion_model.input_blocks.0.0.weight": {
      ...{ dtype: "F16", shape: [1, 1], data_offsets: [0, 2] },
    },
    "first_stage_model.decoder.conv_in.weight": { dtype: "I8", shape: [2], data_offsets: [2, 4] },
    clip_l: { dtype: "F32", shape: [1, 1], data_offsets: [4, 8] },
  },
];
const keyNames = [
  ...["lora_te1_x.hada_w1_a", "lora_unet_x.lokr_w1", "x.lora_mid.weight", "x.dora_scale", "x.diff"],
  ...["conditioner.embedders.1.model.ln_final.weight", "controlnet_cond_embedding.x", "clip_g"],
];

/** Where the last tensor of a header ends, if that is near. */
function endOf(header: Buffer): number {
  const ends = [...header.toString("latin1").matchAll(/"data_offsets":\[\d+,(\d{1,3})\]/g)];
  return Math.max(0, ...ends.map(([, end]) => Number(end)));
}

/** A file of safetensors whose header is nearly right. */
function safetensors(random: Random): Buffer {
  const text = Buffer.from(mutateJson(random, random.pick(headers), keyNames));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const file = Buffer.concat([length, text, Buffer.alloc(endOf(text))]);
  return random.once(4) ? mutateBytes(random, file) : file;
}

export const headerTarget = target("headers", safetensors, (bytes) => {
  const length = bytes.length < 8 ? 0n : bytes.readBigUInt64LE();
  if (length > BigInt(bytes.length - 8)) return;
  const json = bytes.subarray(8, 8 + Number(length));
  const header = parseSafetensorsHeader("x.safetensors", bytes.length, json);
  identify(header);
  classifyHeader(header);
});

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
