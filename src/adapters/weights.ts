/**
 * The model's weights that adapters can change: their keys and shapes, from the headers of the
 * model's files.
 */
import type { ComponentWeights, Model } from "../models/model.ts";
import { readSafetensorsHeader } from "../models/safetensors-header.ts";
import { type AdaptedComponent, ModuleAliases, type NamedModule } from "./aliases.ts";

/** One weight of the model. */
interface ModelWeight {
  component: AdaptedComponent;
  /** Key of the weight as diffusers names it, such as "mid_block.resnets.0.conv1.weight". */
  key: string;
  shape: readonly number[];
}

/** What adapters find in one model. */
export interface AdaptableModel {
  aliases: ModuleAliases;
  /** The weight or bias of a module; null where the module has none. */
  weightOf(module: NamedModule, kind: "weight" | "bias"): ModelWeight | null;
  /** Width of the prompt's embedding that cross-attention reads: 2048 for SDXL. */
  contextWidth: number;
}

/** The same model is looked at once. Throws "bad-weights" for files whose header is broken. */
export function adaptableModelOf(model: Model): AdaptableModel {
  const known = adaptableModels.get(model);
  if (known !== undefined) return known;
  const shapes = {
    text_encoder: shapesOf(model.weights.textEncoder),
    text_encoder_2: shapesOf(model.weights.textEncoder2),
    unet: shapesOf(model.weights.unet),
  };
  const found: AdaptableModel = {
    aliases: new ModuleAliases(model),
    contextWidth: model.unet.crossAttentionDim,
    weightOf({ component, path }, kind) {
      const key = `${path}.${kind}`;
      const shape = shapes[component].get(key);
      if (shape !== undefined) return { component, key, shape };
      // Files written by transformers 5 have no such prefix.
      const short = key.replace(/^text_model\./, "");
      const shapeOfShort = shapes[component].get(short);
      return shapeOfShort === undefined ? null : { component, key: short, shape: shapeOfShort };
    },
  };
  adaptableModels.set(model, found);
  return found;
}

// --- internal ---

const adaptableModels = new WeakMap<Model, AdaptableModel>();

/** Shapes by diffusers' keys. */
function shapesOf({ files, names }: ComponentWeights): Map<string, readonly number[]> {
  const inFiles = new Map<string, readonly number[]>();
  for (const path of files) {
    for (const [key, { shape }] of readSafetensorsHeader(path).tensors) inFiles.set(key, shape);
  }
  if (names === null) return inFiles;
  const shapes = new Map<string, readonly number[]>();
  for (const [key, { name, part, transposed }] of names) {
    const shape = inFiles.get(name);
    if (shape === undefined) continue;
    const [first = 1, ...rest] = transposed ? shape.toReversed() : shape;
    shapes.set(key, [first / (part?.[1] ?? 1), ...rest]);
  }
  return shapes;
}
