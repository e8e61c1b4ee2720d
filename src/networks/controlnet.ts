/**
 * ControlNets: folders in diffusers' layout by their config.json, single files with diffusers' keys
 * or the original ones by keys and shapes. What shapes do not say is as in the model.
 */
import { join } from "node:path";
import { badWeights, escaped } from "../errors.ts";
import { parseUnetConfig, type UnetConfig } from "../models/config.ts";
import { ConfigReader, listOf, positiveInteger, text } from "../models/config-reader.ts";
import { readJsonFile } from "../models/json.ts";
import { timeIdCount } from "../models/kind.ts";
import type { ComponentWeights, Model, WeightNames, WeightSource } from "../models/model.ts";
import { readSafetensorsHeader, type SafetensorsHeader } from "../models/safetensors-header.ts";
import { Shapes } from "../models/single-file/shapes.ts";
import { type UnetShape, unetShapeOf } from "../models/single-file/unet-shape.ts";
import { findWeightFiles } from "../models/weight-files.ts";
import { weightsName } from "../paths.ts";
import { controlNetModuleNames } from "./controlnet-names.ts";
import type { ControlNetConfig, ControlNetNetwork, Fitting } from "./network.ts";

/** Opens the folder. Rejects with "bad-model" for a config that is for another model. */
export async function openControlNetFolder(
  folder: string,
  model: Fitting,
): Promise<ControlNetNetwork> {
  const path = join(folder, "config.json");
  const files = await findWeightFiles(folder, "diffusion_pytorch_model");
  const json = await readJsonFile(path);
  const config = withTimeIds(configOf(new ConfigReader(path, json), json as object), model);
  checkFits(folder, config, model);
  const names = config.controlTypeCount > 0 ? unionNames(files.map(readSafetensorsHeader)) : null;
  const name = weightsName(folder);
  return { kind: "controlnet", path: folder, name, config, weights: { files, names } };
}

/** Opens a single file, whose header is `header`. */
export function openControlNetFile(header: SafetensorsHeader, model: Fitting): ControlNetNetwork {
  const { path } = header;
  if (header.tensors.has("lora_controlnet")) {
    throw badWeights(path, "is a Control-LoRA, which is not read: take the whole ControlNet");
  }
  const original = ["control_model.", ""].find((prefix) =>
    header.tensors.has(`${prefix}input_hint_block.0.weight`),
  );
  const name = weightsName(path);
  const shapes = new Shapes(header.tensors, original ?? "");
  const config = withTimeIds(configOfShapes(path, shapes, original !== undefined, model), model);
  checkFits(path, config, model);
  const weights: ComponentWeights = {
    files: [path],
    names:
      original !== undefined
        ? originalNames(shapes, config)
        : config.controlTypeCount > 0
          ? unionNames([header])
          : null,
  };
  return { kind: "controlnet", path, name, config, weights };
}

// --- internal ---

type OwnConfig = Omit<ControlNetConfig, "timeIdCount">;

function withTimeIds(config: OwnConfig, { clip2 }: Fitting): ControlNetConfig {
  return { ...config, timeIdCount: timeIdCount({ unet: config.unet, clip2 }) };
}

/** diffusers' config.json: the keys of a UNet that has no up blocks, and those of the hint. */
function configOf(reader: ConfigReader, json: object): OwnConfig {
  reader.refuseUnless("_class_name", ["ControlNetModel", "ControlNetUnionModel"]);
  const cross = reader.optional("cross_attention_dim", positiveInteger, 1280);
  if (reader.optional("addition_embed_type", text, null) === null) {
    const family = cross === 768 ? "Stable Diffusion 1.5" : "Stable Diffusion 2 or another model";
    reader.fail(`this is a ControlNet for ${family}, and the model is of the SDXL family`);
  }
  reader.refuseUnless("global_pool_conditions", [false]);
  const order = reader.optional("controlnet_conditioning_channel_order", text, "rgb");
  reader.refuseUnless("controlnet_conditioning_channel_order", ["rgb", "bgr"]);
  const isUnion = (json as { _class_name?: unknown })._class_name === "ControlNetUnionModel";
  const downs = reader.optional("down_block_types", listOf(text), [
    ...new Array<string>(3).fill("CrossAttnDownBlock2D"),
    "DownBlock2D",
  ]);
  const embedding = isUnion ? [48, 96, 192, 384] : [16, 32, 96, 256];
  return {
    unet: parseUnetConfig(reader.path, {
      ...json,
      _class_name: "UNet2DConditionModel",
      down_block_types: downs,
      up_block_types: downs.map((name) => name.replace("Down", "Up")).reverse(),
      mid_block_type:
        (json as { mid_block_type?: unknown }).mid_block_type ?? "UNetMidBlock2DCrossAttn",
    }),
    conditioningChannels: reader.optional("conditioning_channels", positiveInteger, 3),
    embeddingChannels: reader.optional(
      "conditioning_embedding_out_channels",
      listOf(positiveInteger),
      embedding,
    ),
    controlTypeCount: isUnion ? reader.optional("num_control_type", positiveInteger, 6) : 0,
    typeLayerCount: isUnion ? reader.optional("num_trans_layer", positiveInteger, 1) : 0,
    isBgr: order === "bgr",
  };
}

/** The same from keys and shapes. */
function configOfShapes(
  path: string,
  shapes: Shapes,
  isOriginal: boolean,
  { unet: own }: Fitting,
): OwnConfig {
  const shape = isOriginal ? unetShapeOf(shapes) : diffusersShapeOf(shapes);
  if (shape.additionSize === 0) {
    const family = shape.contextSize === 768 ? "Stable Diffusion 1.5" : "another model";
    throw badWeights(path, `is a ControlNet for ${family}, and the model is of the SDXL family`);
  }
  const hint = isOriginal ? "input_hint_block." : "controlnet_cond_embedding.";
  const embedding = isOriginal
    ? [0, 4, 8, 12].map((i) => shapes.dimension(`${hint}${i}.weight`, 0))
    : [
        shapes.dimension(`${hint}conv_in.weight`, 0),
        ...Array.from({ length: shapes.count((i) => `${hint}blocks.${i}.weight`) / 2 }, (_, i) =>
          shapes.dimension(`${hint}blocks.${2 * i + 1}.weight`, 0),
        ),
      ];
  const first = isOriginal ? `${hint}0.weight` : `${hint}conv_in.weight`;
  return {
    unet: unetOf(shape, own),
    conditioningChannels: shapes.dimension(first, 1),
    embeddingChannels: embedding,
    controlTypeCount: shapes.dimension("task_embedding", 0),
    typeLayerCount: shapes.count((i) => `transformer_layes.${i}.ln_1.weight`),
    isBgr: false,
  };
}

function unetOf(shape: UnetShape, own: UnetConfig): UnetConfig {
  const attended = (depths: number[]) => (depths.some((depth) => depth > 0) ? depths : []);
  return {
    ...own,
    inChannels: shape.inChannels,
    blockOutChannels: shape.blockOutChannels,
    layersPerBlock: shape.layersPerBlock,
    downTransformerLayers: shape.downDepths.map(attended),
    upTransformerLayers: shape.downDepths.map(() => []),
    midBlock: shape.midDepth === -2 ? "none" : shape.midDepth === -1 ? "resnet" : "cross_attention",
    midTransformerLayers: Math.max(0, shape.midDepth),
    crossAttentionDim: shape.contextSize || own.crossAttentionDim,
    additionInputDim: shape.additionSize,
  };
}

/** Levels, widths and depths by diffusers' keys. */
function diffusersShapeOf(shapes: Shapes): UnetShape {
  const levels = shapes.count((i) => `down_blocks.${i}.resnets.0.conv1.weight`);
  const at = Array.from({ length: levels }, (_, i) => shapes.at(`down_blocks.${i}.`));
  const depthOf = (attention: Shapes) =>
    attention.count((i) => `transformer_blocks.${i}.attn2.to_k.weight`);
  const downDepths = at.map((block) =>
    Array.from({ length: block.count((j) => `resnets.${j}.conv1.weight`) }, (_, j) =>
      depthOf(block.at(`attentions.${j}.`)),
    ),
  );
  const hasMid = shapes.has("mid_block.resnets.0.conv1.weight");
  const places = [
    ...at.flatMap((_, i) => [0, 1].map((j) => `down_blocks.${i}.attentions.${j}.`)),
    "mid_block.attentions.0.",
  ];
  const contexts = places.map((place) =>
    shapes.dimension(`${place}transformer_blocks.0.attn2.to_k.weight`, -1),
  );
  return {
    inChannels: shapes.dimension("conv_in.weight", 1),
    outChannels: 0,
    blockOutChannels: at.map((block) => block.dimension("resnets.0.conv1.weight", 0)),
    layersPerBlock: downDepths.map(({ length }) => length),
    downDepths,
    upDepths: [],
    midDepth: hasMid ? depthOf(shapes.at("mid_block.attentions.0.")) || -1 : -2,
    contextSize: contexts.find((size) => size > 0) ?? 0,
    additionSize: shapes.dimension("add_embedding.linear_1.weight", 1),
  };
}

/** Refuses a ControlNet whose residuals have not the sizes of the UNet. */
function checkFits(
  path: string,
  { unet, embeddingChannels, conditioningChannels }: ControlNetConfig,
  model: Fitting,
): void {
  const own = model.unet;
  const sizes: [what: string, theirs: unknown, ours: unknown][] = [
    ["reads latents of", unet.inChannels, model.vae.latentChannels],
    ["has block_out_channels", unet.blockOutChannels, own.blockOutChannels],
    ["has layers_per_block", unet.layersPerBlock, own.layersPerBlock],
    ["reads prompts of width", unet.crossAttentionDim, own.crossAttentionDim],
    ["reads pooled prompts and sizes of width", unet.additionInputDim, own.additionInputDim],
    ["halves hints so many times:", embeddingChannels.length - 1, levelsOf(model) - 1],
    ["reads hints of so many channels:", conditioningChannels, 3],
  ];
  for (const [what, theirs, ours] of sizes) {
    if (JSON.stringify(theirs) === JSON.stringify(ours)) continue;
    throw badWeights(
      path,
      `is a ControlNet for another model than ${escaped(model.name, 60)}: it ${what} ` +
        `${theirs}, where ${ours} fits`,
    );
  }
}

function levelsOf({ vae }: Pick<Model, "vae">): number {
  return vae.blockOutChannels.length;
}

/** All keys as they are, and the last third of each in_proj. */
function unionNames(headers: readonly SafetensorsHeader[]): WeightNames {
  const names = new Map<string, WeightSource>();
  for (const key of headers.flatMap(({ tensors }) => [...tensors.keys()])) {
    names.set(key, { name: key });
    const [, layer, end] =
      /^(transformer_layes\.\d+\.attn\.)in_proj_(weight|bias)$/.exec(key) ?? [];
    if (layer) names.set(`${layer}v_proj.${end}`, { name: key, part: [2, 3] });
  }
  return names;
}

function originalNames(shapes: Shapes, { unet }: ControlNetConfig): WeightNames {
  const names = new Map<string, WeightSource>();
  for (const { diffusers, original } of controlNetModuleNames(unet)) {
    for (const end of ["weight", "bias"]) {
      const name = `${shapes.prefix}${original}.${end}`;
      if (shapes.has(`${original}.${end}`)) names.set(`${diffusers}.${end}`, { name });
    }
  }
  return names;
}
