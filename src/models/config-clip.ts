/**
 * The config.json of a CLIP text encoder (transformers: CLIPTextConfig). `eosTokenId` is kept as
 * the file has it, even the wrong 2 of older files: where the text is pooled depends on it.
 */
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
  const reader = new ConfigReader(path, json);
  checkClass(reader, hasProjection);
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

function checkClass(reader: ConfigReader, hasProjection: boolean): void {
  const architectures = reader.optional("architectures", listOf(text), null);
  if (!architectures) return;
  const wanted = hasProjection ? "CLIPTextModelWithProjection" : "CLIPTextModel";
  if (architectures.includes(wanted)) return;
  const found = word(architectures.join(", ")) || "empty";
  reader.fail(`architectures is ${found}, but SDXL needs a ${wanted} here`);
}
