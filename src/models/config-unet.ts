/**
 * The config.json of the UNet (diffusers: UNet2DConditionModel), as far as SDXL uses it. Beware:
 * `attention_head_dim` holds the number of heads, not their width, for historical reasons.
 */
import * as v from "valibot";
import {
  ConfigReader,
  finiteNumber,
  listOf,
  positiveInteger,
  positiveNumber,
  show,
  text,
  wholeNumber,
  word,
} from "./config-reader.ts";

export type MidBlockKind = "cross_attention" | "resnet" | "none";

export interface UnetConfig {
  inChannels: number;
  outChannels: number;
  blockOutChannels: number[];
  /** Residual layers per down level; up blocks have one more each. */
  layersPerBlock: number[];
  /** Transformer layers of each attention of each down block; [] for a block without attention. */
  downTransformerLayers: number[][];
  /** Resnet, attention, resnet; one resnet; or no mid block. */
  midBlock: MidBlockKind;
  /** 0 where the mid block has no attention. */
  midTransformerLayers: number;
  /** As `downTransformerLayers`, in the order of up_blocks. */
  upTransformerLayers: number[][];
  /** Attention heads per down level; up blocks mirror them. */
  headCounts: number[];
  crossAttentionDim: number;
  normGroups: number;
  normEps: number;
  additionTimeEmbedDim: number;
  /** Width of the pooled text plus six embedded sizes. */
  additionInputDim: number;
  flipSinToCos: boolean;
  freqShift: number;
  sampleSize: number;
}

/** Reads the UNet's config. Throws "bad-model" with the file and the key. */
export function parseUnetConfig(path: string, json: unknown): UnetConfig {
  const reader = new ConfigReader(path, json);
  for (const [key, values] of Object.entries(supported)) reader.refuseUnless(key, values);
  reader.checkSilu();
  reader.refuseQuantized();
  checkCrossAttention(reader);
  if (reader.optional("addition_embed_type", text, null) === null) {
    reader.fail(
      'addition_embed_type is missing (is this another model?), but SDXL has "text_time"',
    );
  }
  reader.refuseNull("norm_num_groups");
  if (!reader.isOn("use_linear_projection", false)) {
    reader.fail("use_linear_projection is not true, but SDXL's projections are linear");
  }
  const channels = listOf(positiveInteger);
  const blockOutChannels = reader.optional("block_out_channels", channels, [320, 640, 1280, 1280]);
  const levelCount = blockOutChannels.length;
  reader.checkLevels(levelCount);
  reader.refuseUnless("time_embedding_dim", [4 * blockOutChannels[0]!]);
  const layersPerBlock = readLayersPerBlock(reader, levelCount);
  const config: UnetConfig = {
    inChannels: reader.optional("in_channels", positiveInteger, 4),
    outChannels: reader.optional("out_channels", positiveInteger, 4),
    blockOutChannels,
    layersPerBlock,
    ...transformerLayers(reader, layersPerBlock),
    headCounts: headCounts(reader, levelCount),
    crossAttentionDim: crossAttentionDim(reader, levelCount),
    normGroups: reader.optional("norm_num_groups", positiveInteger, 32),
    normEps: reader.optional("norm_eps", positiveNumber, 1e-5),
    additionTimeEmbedDim: reader.required("addition_time_embed_dim", positiveInteger),
    additionInputDim: reader.required("projection_class_embeddings_input_dim", positiveInteger),
    flipSinToCos: reader.isOn("flip_sin_to_cos", true),
    freqShift: reader.optional("freq_shift", finiteNumber, 0),
    sampleSize: sampleSize(reader),
  };
  checkDivisions(reader, config);
  return config;
}

// --- internal ---

/**
 * The supported values of each key; null, or the key left out, means diffusers' default and is
 * always fine. Keys that the blocks of SDXL do not read (cross_attention_norm,
 * resnet_skip_time_act, …) are not looked at, as in diffusers.
 */
const supported: Record<string, readonly unknown[]> = {
  _class_name: ["UNet2DConditionModel"],
  addition_embed_type: ["text_time"],
  attention_type: ["default"],
  center_input_sample: [false],
  class_embed_type: [],
  class_embeddings_concat: [false],
  conv_in_kernel: [3],
  conv_out_kernel: [3],
  downsample_padding: [1],
  dual_cross_attention: [false],
  encoder_hid_dim: [],
  encoder_hid_dim_type: [],
  mid_block_scale_factor: [1],
  mid_block_type: ["UNetMidBlock2DCrossAttn", "UNetMidBlock2D"],
  num_class_embeds: [],
  resnet_time_scale_shift: ["default"],
  time_cond_proj_dim: [],
  time_embedding_act_fn: [],
  time_embedding_type: ["positional"],
  timestep_post_act: [],
};

const downDefault = [...new Array<string>(3).fill("CrossAttnDownBlock2D"), "DownBlock2D"];
const upDefault = ["UpBlock2D", ...new Array<string>(3).fill("CrossAttnUpBlock2D")];

/** True for each block that has attention. */
function attentionFlags(
  reader: ConfigReader,
  key: "down_block_types" | "up_block_types",
  levelCount: number,
): boolean[] {
  const [plain, crossing, fallback] =
    key === "down_block_types"
      ? ["DownBlock2D", "CrossAttnDownBlock2D", downDefault]
      : ["UpBlock2D", "CrossAttnUpBlock2D", upDefault];
  const blocks = reader.optional(key, listOf(text), fallback as string[]);
  const other = blocks.find((block) => block !== plain && block !== crossing);
  if (other !== undefined)
    reader.fail(`${key} has ${word(other)}, which is not supported; ${plain}, ${crossing} are`);
  if (blocks.length !== levelCount) {
    reader.fail(`${key} has ${blocks.length} entries, but block_out_channels has ${levelCount}`);
  }
  return blocks.map((block) => block === crossing);
}

/** One switch, or one for each level: attention without self-attention. */
function checkCrossAttention(reader: ConfigReader): void {
  const key = "only_cross_attention";
  const value = reader.optional(key, v.unknown(), null);
  const switches = Array.isArray(value) ? value : [value];
  if (switches.every((each) => each === false || each === null)) return;
  reader.fail(`${key} is ${show(value)}, which is not supported; false is`);
}

/** As `attention_count_max` in zig/model/config.zig, less the layer that up blocks have more. */
const layersPerBlockMax = 7;

function readLayersPerBlock(reader: ConfigReader, levelCount: number): number[] {
  const layers = reader.perLevel("layers_per_block", positiveInteger, 2, levelCount);
  const large = layers.find((count) => count > layersPerBlockMax);
  if (large === undefined) return layers;
  return reader.fail(`layers_per_block is ${large}, but at most ${layersPerBlockMax} is supported`);
}

const depthsKey = "transformer_layers_per_block";
const reverseDepthsKey = "reverse_transformer_layers_per_block";
type DepthsKey = typeof depthsKey | typeof reverseDepthsKey;

/** The depth of a block's attentions: one for all, or one for each. */
type Depth = number | number[];
const depthsMessage = "it must be a number, or for each level a number or a list of numbers";
const depths = listOf(v.union([wholeNumber, listOf(wholeNumber)], depthsMessage));

/** The depths of all attentions. Down and mid blocks have one key, up blocks its reverse or one. */
function transformerLayers(reader: ConfigReader, layersPerBlock: number[]) {
  const levelCount = layersPerBlock.length;
  const downs = attentionFlags(reader, "down_block_types", levelCount);
  const ups = attentionFlags(reader, "up_block_types", levelCount);
  const either = v.union([wholeNumber, depths], depthsMessage);
  const given = perBlock(reader, depthsKey, reader.optional(depthsKey, either, 1), levelCount);
  const reverse = reader.optional(reverseDepthsKey, depths, null);
  const reversed = reverse && perBlock(reader, reverseDepthsKey, reverse, levelCount);
  if (!reversed && given.some((each) => typeof each !== "number")) {
    reader.fail(`${depthsKey} is ${show(given)}, which needs ${reverseDepthsKey} beside it`);
  }
  const upDepths = reversed ?? [...given].reverse();
  const midBlock = midBlockKind(reader);
  return {
    downTransformerLayers: given.map((each, i) =>
      downs[i] ? perAttention(reader, depthsKey, each, layersPerBlock[i]!) : [],
    ),
    midBlock,
    // The only attention of the mid block has the first depth of the last down block.
    midTransformerLayers:
      midBlock === "cross_attention"
        ? perAttention(reader, depthsKey, [given.at(-1)!].flat().slice(0, 1), 1)[0]!
        : 0,
    upTransformerLayers: upDepths.map((each, i) => {
      const key = reversed ? reverseDepthsKey : depthsKey;
      const count = layersPerBlock[levelCount - 1 - i]! + 1;
      return ups[i] ? perAttention(reader, key, each, count) : [];
    }),
  };
}

/** A number for all blocks, or an entry for each of them. */
function perBlock(reader: ConfigReader, key: DepthsKey, value: number | Depth[], count: number) {
  const list = typeof value === "number" ? new Array<Depth>(count).fill(value) : value;
  if (list.length === count) return list;
  return reader.fail(`${key} has ${list.length} entries, but there are ${count} levels`);
}

/** Depths of `count` attentions. A block that has attention has layers in each of them. */
function perAttention(reader: ConfigReader, key: DepthsKey, value: Depth, count: number): number[] {
  const depths = typeof value === "number" ? new Array<number>(count).fill(value) : value;
  if (depths.length !== count) {
    reader.fail(`${key} has ${show(value)} for a block with ${count} attentions`);
  }
  if (depths.includes(0)) reader.fail(`${key} has 0 for a block with attention`);
  return depths;
}

function midBlockKind(reader: ConfigReader): MidBlockKind {
  const name = reader.isNull("mid_block_type")
    ? null
    : reader.optional("mid_block_type", text, "UNetMidBlock2DCrossAttn");
  if (name === null) return "none";
  return name === "UNetMidBlock2D" ? "resnet" : "cross_attention";
}

function headCounts(reader: ConfigReader, levelCount: number): number[] {
  const named = reader.optional("num_attention_heads", v.unknown(), null) !== null;
  const key = named ? "num_attention_heads" : "attention_head_dim";
  return reader.perLevel(key, positiveInteger, 8, levelCount);
}

/** diffusers allows one width per level; SDXL's text is the same for all of them. */
function crossAttentionDim(reader: ConfigReader, levelCount: number): number {
  const dims = reader.perLevel("cross_attention_dim", positiveInteger, 1280, levelCount);
  if (dims.every((dim) => dim === dims[0])) return dims[0]!;
  return reader.fail(`cross_attention_dim is ${show(dims)}; levels that differ are not supported`);
}

/**
 * The model's own latent size; 128 (1024 pixels) where the file leaves it out, as in the pipeline.
 */
function sampleSize(reader: ConfigReader): number {
  const key = "sample_size";
  const either = v.union([positiveInteger, listOf(positiveInteger)], "it must be a whole number");
  const size = reader.optional(key, either, null) ?? 128;
  if (typeof size === "number") return size;
  if (size.length === 2 && size[0] === size[1]) return size[0]!;
  return reader.fail(`${key} is ${show(size)}, which is not supported; one number is`);
}

function checkDivisions(reader: ConfigReader, config: UnetConfig): void {
  const { blockOutChannels, headCounts, normGroups, downTransformerLayers } = config;
  const lastLevel = blockOutChannels.length - 1;
  const upLayers = [...config.upTransformerLayers].reverse();
  blockOutChannels.forEach((channels, level) => {
    if (channels % normGroups !== 0) {
      reader.fail(`norm_num_groups ${normGroups} does not divide block_out_channels ${channels}`);
    }
    const attends =
      downTransformerLayers[level]!.length > 0 ||
      upLayers[level]!.length > 0 ||
      (level === lastLevel && config.midBlock === "cross_attention");
    const heads = headCounts[level]!;
    if (attends && channels % heads !== 0) {
      reader.fail(
        `attention_head_dim (the number of heads) ${heads} does not divide ${channels} channels`,
      );
    }
  });
  // Half of an embedding are sines, half cosines.
  if (blockOutChannels[0]! % 2 !== 0) reader.fail("the first of block_out_channels is odd");
  if (config.additionTimeEmbedDim % 2 !== 0) reader.fail("addition_time_embed_dim is odd");
}
