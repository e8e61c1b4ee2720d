/**
 * The config.json of the autoencoder (diffusers: AutoencoderKL). Only the plain kind is supported:
 * latents are divided by one scaling factor, with no mean, deviation or shift.
 */
import * as v from "valibot";
import {
  ConfigReader,
  listOf,
  positiveInteger,
  positiveNumber,
  show,
  text,
  word,
} from "./config-reader.ts";

export interface VaeConfig {
  inChannels: number;
  outChannels: number;
  latentChannels: number;
  blockOutChannels: number[];
  layersPerBlock: number;
  normGroups: number;
  scalingFactor: number;
  midAttention: boolean;
  useQuantConv: boolean;
  usePostQuantConv: boolean;
  sampleSize: number;
}

/** Reads the autoencoder's config. Throws "bad-model" with the file and the key. */
export function parseVaeConfig(path: string, json: unknown): VaeConfig {
  const reader = new ConfigReader(path, json);
  reader.refuseUnless("_class_name", ["AutoencoderKL"]);
  reader.checkSilu();
  reader.refuseQuantized();
  reader.refuseUnless("shift_factor", [0]);
  checkLatents(reader, "latents_mean", 0);
  checkLatents(reader, "latents_std", 1);

  const blockOutChannels = reader.optional("block_out_channels", listOf(positiveInteger), [64]);
  const levelCount = blockOutChannels.length;
  reader.checkLevels(levelCount);
  checkBlocks(reader, "down_block_types", "DownEncoderBlock2D", levelCount);
  checkBlocks(reader, "up_block_types", "UpDecoderBlock2D", levelCount);
  const normGroups = reader.optional("norm_num_groups", positiveInteger, 32);
  for (const channels of blockOutChannels) {
    if (channels % normGroups !== 0) {
      reader.fail(`norm_num_groups ${normGroups} does not divide block_out_channels ${channels}`);
    }
  }
  const sampleSize = v.union(
    [positiveInteger, v.pipe(v.array(positiveInteger), v.minLength(1))],
    "it must be a whole number",
  );
  const size = reader.optional("sample_size", sampleSize, null) ?? 32;
  const config: VaeConfig = {
    inChannels: reader.optional("in_channels", positiveInteger, 3),
    outChannels: reader.optional("out_channels", positiveInteger, 3),
    latentChannels: reader.optional("latent_channels", positiveInteger, 4),
    blockOutChannels,
    layersPerBlock: reader.optional("layers_per_block", positiveInteger, 1),
    normGroups,
    scalingFactor: reader.optional("scaling_factor", positiveNumber, 0.18215),
    midAttention: reader.isOn("mid_block_add_attention", true),
    useQuantConv: reader.isOn("use_quant_conv", true),
    usePostQuantConv: reader.isOn("use_post_quant_conv", true),
    sampleSize: typeof size === "number" ? size : size[0]!,
  };
  if (config.inChannels !== 3) reader.fail(`in_channels is ${config.inChannels}; RGB needs 3`);
  if (config.outChannels !== 3) reader.fail(`out_channels is ${config.outChannels}; RGB needs 3`);
  return config;
}

// --- internal ---

/** One number per latent channel, of which only `neutral`, which changes nothing, is followed. */
function checkLatents(reader: ConfigReader, key: string, neutral: number): void {
  const values = reader.optional(key, v.unknown(), null);
  if (values === null) return;
  if (Array.isArray(values) && values.every((value) => value === neutral)) return;
  reader.fail(`${key} is ${show(values)}, which is not supported; null or ${neutral}s are`);
}

function checkBlocks(reader: ConfigReader, key: string, kind: string, levelCount: number): void {
  const blocks = reader.optional(key, listOf(text), [kind]);
  const other = blocks.find((block) => block !== kind);
  if (other !== undefined)
    reader.fail(`${key} has ${word(other)}, which is not supported; ${kind} is`);
  if (blocks.length === levelCount) return;
  reader.fail(`${key} has ${blocks.length} entries, but block_out_channels has ${levelCount}`);
}
