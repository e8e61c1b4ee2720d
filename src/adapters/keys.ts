/**
 * Keys of adapter files: the module that a key names, and what its tensor is for that module. The
 * tables are data; matching a module's spelling with the model is `aliases.ts`.
 * Sources: ComfyUI comfy/lora.py and comfy/weight_adapter/*.py, diffusers
 * loaders/lora_conversion_utils.py, LyCORIS lycoris/modules/*.py, PEFT utils/save_and_load.py.
 */

/** How the tensors of a module change its weight. */
export type Family = "lora" | "loha" | "lokr" | "diff" | "diffBias" | "set";

/** Tensors of a low-rank delta; the names are those of the native library's fields. */
export type Factor =
  | "up"
  | "down"
  | "mid"
  | "w1"
  | "w1A"
  | "w1B"
  | "t1"
  | "w2"
  | "w2A"
  | "w2B"
  | "t2";

/** `doraScale` is DoRA's of kohya and LyCORIS, `magnitude` PEFT's. */
export type Slot = Factor | "value" | "alpha" | "doraScale" | "magnitude";

interface SplitKey {
  /** The module, as the file spells it. */
  base: string;
  slot: Slot;
  /** null where several have such a tensor. */
  family: Family | null;
}

/** Splits a key; null where its ending is none of an adapter. */
export function splitKey(key: string): SplitKey | null {
  // No module's path is longer; endings are found in the last part alone.
  if (key.length > keyLengthMax) return null;
  for (const [ending, slot, family] of endings) {
    const match = ending.exec(key);
    if (match !== null) return { base: key.slice(0, match.index), slot, family };
  }
  return null;
}

/** The name of a kind of adapter that is not supported and has such keys; null for other keys. */
export function refusedKind(key: string): string | null {
  if (key.length > keyLengthMax) return null;
  return refusedEndings.find(([ending]) => ending.test(key))?.[1] ?? null;
}

/** Whether the key belongs to an embedding that the file brings along; those are read apart. */
export function isBundledEmbedding(key: string): boolean {
  return key.startsWith("bundle_emb.");
}

// --- internal ---

const keyLengthMax = 1000;

/** PEFT puts the adapter's name before ".weight": "default" or one that the user chose. */
const peftName = String.raw`(?:\.(?!weight$|bias$)[^.]+)?(?:\.weight)?$`;

const endings: readonly (readonly [RegExp, Slot, Family | null])[] = [
  [/(?:\.lora_|[._]lora\.|\.lora_linear_layer\.)up(?:\.weight)?$/, "up", "lora"],
  [/(?:\.lora_|[._]lora\.|\.lora_linear_layer\.)down(?:\.weight)?$/, "down", "lora"],
  [/\.lora_mid(?:\.weight)?$/, "mid", "lora"],
  [new RegExp(String.raw`\.lora_B${peftName}`), "up", "lora"],
  [new RegExp(String.raw`\.lora_A${peftName}`), "down", "lora"],
  [new RegExp(String.raw`\.lora_magnitude_vector${peftName}`), "magnitude", null],
  [/\.dora_scale$/, "doraScale", null],
  [/(?:[._]lora|\.lora_linear_layer)?\.alpha$/, "alpha", null],
  [/\.hada_w1_a$/, "w1A", "loha"],
  [/\.hada_w1_b$/, "w1B", "loha"],
  [/\.hada_w2_a$/, "w2A", "loha"],
  [/\.hada_w2_b$/, "w2B", "loha"],
  [/\.hada_t1$/, "t1", "loha"],
  [/\.hada_t2$/, "t2", "loha"],
  [/\.lokr_w1$/, "w1", "lokr"],
  [/\.lokr_w1_a$/, "w1A", "lokr"],
  [/\.lokr_w1_b$/, "w1B", "lokr"],
  [/\.lokr_w2$/, "w2", "lokr"],
  [/\.lokr_w2_a$/, "w2A", "lokr"],
  [/\.lokr_w2_b$/, "w2B", "lokr"],
  [/\.lokr_t2$/, "t2", "lokr"],
  [/\.(?:diff|w_norm)$/, "value", "diff"],
  [/\.(?:diff_b|b_norm)$/, "value", "diffBias"],
  [/\.set_weight$/, "value", "set"],
];

const refusedEndings: readonly (readonly [RegExp, string])[] = [
  [/\.(?:a1|a2|b1|b2|bm1|bm2)\.weight$/, "GLoRA"],
  [/[._]boft_[a-zA-Z]+(?:\.[^.]+)?$/, "BOFT"],
  [/\.oft_(?:blocks|diag)(?:\.[^.]+)?$/, "OFT or BOFT"],
  [/[._]oft_[a-zA-Z]+(?:\.[^.]+)?$/, "OFT"],
  [/\.on_input$|[._]ia3_l(?:\.[^.]+)?$/, "IA3"],
  [/[._]vera_lambda_[a-z](?:\.[^.]+)?$/, "VeRA"],
  [/\.reshape_weight$/, "LoRA with widened weights"],
];
