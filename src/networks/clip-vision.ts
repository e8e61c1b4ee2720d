/**
 * CLIP's image encoders, which IP-Adapters read: a folder of transformers
 * (CLIPVisionModelWithProjection), one file with its keys, or one with those of OpenCLIP. Sizes
 * follow from config.json, or from the shapes and the two encoders that are in use.
 */
import { basename, join } from "node:path";
import * as v from "valibot";
import { type BasedXLError, badWeights } from "../errors.ts";
import { ConfigReader, oneOf, positiveInteger, positiveNumber } from "../models/config-reader.ts";
import { readJsonFile } from "../models/json.ts";
import type { ComponentWeights, WeightSource } from "../models/model.ts";
import { openClipVisionModuleNames } from "../models/names.ts";
import { readSafetensorsHeader, type SafetensorsHeader } from "../models/safetensors-header.ts";
import { classifyHeader, describeFile } from "../models/single-file/classify.ts";
import { Shapes } from "../models/single-file/shapes.ts";
import { weightNames } from "../models/single-file/weight-names.ts";
import { findWeightFiles } from "../models/weight-files.ts";
import { isFolder, weightsName } from "../paths.ts";
import type { ClipVisionConfig, ClipVisionNetwork } from "./network.ts";

/** Rejects with "bad-model" or "bad-weights" for what is none. */
export async function openClipVision(path: string): Promise<ClipVisionNetwork> {
  if (!isFolder(path)) return ofFile(path);
  const configPath = join(path, "config.json");
  const config = parseClipVisionConfig(configPath, await readJsonFile(configPath));
  const weights = { files: await findWeightFiles(path, "model"), names: null };
  return networkOf(path, config, weights);
}

/** Throws "bad-model" with the file and the key. */
export function parseClipVisionConfig(path: string, json: unknown): ClipVisionConfig {
  const whole = new ConfigReader(path, json);
  whole.refuseQuantized();
  const object = v.record(v.string(), v.unknown(), "it must be an object");
  const nested = whole.optional("vision_config", object, null);
  const reader = nested ? new ConfigReader(`${path}: vision_config`, nested) : whole;
  reader.refuseUnless("model_type", ["clip_vision_model", "clip"]);
  const config: ClipVisionConfig = {
    hiddenSize: reader.optional("hidden_size", positiveInteger, 768),
    intermediateSize: reader.optional("intermediate_size", positiveInteger, 3072),
    layerCount: reader.optional("num_hidden_layers", positiveInteger, 12),
    headCount: reader.optional("num_attention_heads", positiveInteger, 12),
    imageSize: reader.optional("image_size", positiveInteger, 224),
    patchSize: reader.optional("patch_size", positiveInteger, 32),
    hiddenAct: reader.optional("hidden_act", oneOf(["quick_gelu", "gelu"]), "quick_gelu"),
    projectionSize: (nested ? whole : reader).optional("projection_dim", positiveInteger, 512),
    layerNormEpsilon: reader.optional("layer_norm_eps", positiveNumber, 1e-5),
  };
  reader.refuseUnless("num_channels", [3]);
  const { hiddenSize, headCount, imageSize, patchSize } = config;
  if (hiddenSize % headCount !== 0) {
    reader.fail(`num_attention_heads ${headCount} does not divide hidden_size ${hiddenSize}`);
  }
  if (imageSize % patchSize !== 0) {
    reader.fail(`patch_size ${patchSize} does not divide image_size ${imageSize}`);
  }
  return config;
}

// --- internal ---

function networkOf(
  path: string,
  config: ClipVisionConfig,
  weights: ComponentWeights,
): ClipVisionNetwork {
  return { kind: "clip_vision", path, name: weightsName(path), config, weights };
}

function ofFile(path: string): ClipVisionNetwork {
  const header = readSafetensorsHeader(path);
  for (const prefix of ["vision_model.", ""]) {
    const tensors = new Shapes(header.tensors, prefix);
    if (!tensors.has("embeddings.class_embedding")) continue;
    const config = configOf(header, tensors, transformersNames);
    const projection = header.tensors.get("visual_projection.weight");
    if (projection === undefined) throw withoutProjection(path);
    const sized = { ...config, projectionSize: projection.shape[0] ?? 0 };
    const names = prefix === "" ? unprefixed(header) : null;
    return networkOf(path, sized, { files: [path], names });
  }
  for (const prefix of ["visual.", "", "model.visual."]) {
    const tensors = new Shapes(header.tensors, prefix);
    if (!tensors.has("transformer.resblocks.0.attn.in_proj_weight")) continue;
    if (!tensors.has("class_embedding")) continue;
    if (!tensors.has("proj")) throw withoutProjection(path);
    const config = configOf(header, tensors, openClipNames);
    const sized = { ...config, projectionSize: tensors.dimension("proj", 1) };
    const modules = openClipVisionModuleNames(config.layerCount);
    const names = new Map(weightNames(tensors, modules).names);
    names.set("vision_model.embeddings.class_embedding", { name: `${prefix}class_embedding` });
    return networkOf(path, sized, { files: [path], names });
  }
  const what = describeFile(classifyHeader(header));
  throw badWeights(path, `is ${what}, not an image encoder (CLIP ViT-H/14 or ViT-bigG/14)`);
}

/** What the shapes are read of. */
interface FileNames {
  classEmbedding: string;
  patches: string;
  positions: string;
  inner(layer: number): string;
}

const transformersNames: FileNames = {
  classEmbedding: "embeddings.class_embedding",
  patches: "embeddings.patch_embedding.weight",
  positions: "embeddings.position_embedding.weight",
  inner: (layer) => `encoder.layers.${layer}.mlp.fc1.weight`,
};

const openClipNames: FileNames = {
  classEmbedding: "class_embedding",
  patches: "conv1.weight",
  positions: "positional_embedding",
  inner: (layer) => `transformer.resblocks.${layer}.mlp.c_fc.weight`,
};

/** By the width: shapes do not tell the heads. All have 16, and OpenAI's ViT-L the quick GELU. */
const encoders: Readonly<Record<number, Pick<ClipVisionConfig, "headCount" | "hiddenAct">>> = {
  1024: { headCount: 16, hiddenAct: "quick_gelu" },
  1280: { headCount: 16, hiddenAct: "gelu" },
  1664: { headCount: 16, hiddenAct: "gelu" },
};

function configOf({ path }: SafetensorsHeader, tensors: Shapes, names: FileNames) {
  const hiddenSize = tensors.dimension(names.classEmbedding, 0);
  const known = encoders[hiddenSize];
  if (known === undefined) {
    throw badWeights(
      path,
      `is an image encoder of ${hiddenSize} channels, whose heads only a config.json tells: name \
its folder instead`,
    );
  }
  const patchSize = tensors.dimension(names.patches, -1);
  const side = Math.sqrt(tensors.dimension(names.positions, 0) - 1);
  return {
    ...known,
    hiddenSize,
    intermediateSize: tensors.dimension(names.inner(0), 0),
    layerCount: tensors.count(names.inner),
    imageSize: Math.round(side) * patchSize,
    patchSize,
    layerNormEpsilon: 1e-5,
  };
}

function unprefixed({ tensors }: SafetensorsHeader): ReadonlyMap<string, WeightSource> {
  const own = [...tensors.keys()].filter((key) => !key.startsWith("visual_projection."));
  const names = new Map(own.map((key) => [`vision_model.${key}`, { name: key }]));
  return names.set("visual_projection.weight", { name: "visual_projection.weight" });
}

function withoutProjection(path: string): BasedXLError {
  return badWeights(
    path,
    `is an image encoder without its projection (${basename(path)} has no \
visual_projection.weight), which IP-Adapters need`,
  );
}
