/**
 * The config.json of a CLIP text encoder (transformers: CLIPTextConfig). `eosTokenId` is kept as
 * the file has it, even the wrong 2 of older files: where the text is pooled depends on it.
 */
import * as v from "valibot";
import {
  ConfigReader,
  listOf,
  oneOf,
  positiveInteger,
  positiveNumber,
  text,
  wholeNumber,
  word,
} from "./config-reader.ts";

export interface ClipConfig {
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  layerCount: number;
  headCount: number;
  positionCount: number;
  hiddenAct: "quick_gelu" | "gelu";
  layerNormEps: number;
  /** Width of the projected pooled output; 0 where the encoder has no projection. */
  projectionSize: number;
  eosTokenId: number;
}

/**
 * Reads a text encoder's config. `hasProjection` is true for the second encoder of SDXL
 * (CLIPTextModelWithProjection). Throws "bad-model" with the file and the key.
 */
export function parseClipConfig(path: string, json: unknown, hasProjection: boolean): ClipConfig {
  const reader = textConfig(new ConfigReader(path, json));
  const config: ClipConfig = {
    vocabSize: reader.optional("vocab_size", positiveInteger, 49408),
    hiddenSize: reader.optional("hidden_size", positiveInteger, 512),
    intermediateSize: reader.optional("intermediate_size", positiveInteger, 2048),
    layerCount: reader.optional("num_hidden_layers", positiveInteger, 12),
    headCount: reader.optional("num_attention_heads", positiveInteger, 8),
    positionCount: reader.optional("max_position_embeddings", positiveInteger, 77),
    hiddenAct: reader.optional("hidden_act", oneOf(["quick_gelu", "gelu"]), "quick_gelu"),
    layerNormEps: reader.optional("layer_norm_eps", positiveNumber, 1e-5),
    projectionSize: hasProjection ? reader.optional("projection_dim", positiveInteger, 512) : 0,
    eosTokenId: reader.optional("eos_token_id", wholeNumber, 49407),
  };
  const { hiddenSize, headCount, layerCount, positionCount } = config;
  if (hiddenSize % headCount !== 0) {
    reader.fail(`num_attention_heads ${headCount} does not divide hidden_size ${hiddenSize}`);
  }
  if (positionCount !== 77) {
    reader.fail(`max_position_embeddings is ${positionCount}, but prompts are 77 tokens long`);
  }
  // The prompt's states are those that the last layer but one gives.
  if (layerCount < 2) reader.fail(`num_hidden_layers is ${layerCount}, but at least 2 are needed`);
  return config;
}

// --- internal ---

/**
 * The object that describes the text encoder: all of it, or `text_config` in the file of
 * a whole CLIP. Which CLIP class saved the file changes nothing, as in transformers: the class to
 * load is named by model_index.json, and its tensors must be there.
 */
function textConfig(whole: ConfigReader): ConfigReader {
  whole.refuseQuantized();
  const architectures = whole.optional("architectures", listOf(text), null) ?? [];
  const isClip = architectures.length === 0 || architectures.some((name) => /^CLIP/.test(name));
  if (!isClip) {
    const found = word(architectures.join(", "));
    whole.fail(`architectures is ${found}, but SDXL needs a CLIPTextModel here`);
  }
  const object = v.record(v.string(), v.unknown(), "it must be an object");
  const nested = whole.optional("text_config", object, null);
  const reader = nested ? new ConfigReader(`${whole.path}: text_config`, nested) : whole;
  reader.refuseUnless("model_type", ["clip_text_model", "clip"]);
  return reader;
}
