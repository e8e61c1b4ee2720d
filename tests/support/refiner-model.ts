/**
 * The golden model as a refiner, without its first text encoder and with five time ids: of weights
 * that read more the columns are cut off, as in tests/reference/make_refiner.py.
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { changeFile, copyModel, type RawTensor, type Tensors } from "./model-copy.ts";

/** Its folder. */
export function refinerFolder(): string {
  const folder = copyModel("unet/diffusion_pytorch_model.safetensors", () => {});
  const read = (path: string) => JSON.parse(readFileSync(join(folder, path), "utf8"));
  const write = (path: string, changes: object) =>
    writeFileSync(join(folder, path), JSON.stringify({ ...read(path), ...changes }));
  const { hidden_size: hiddenSize } = read("text_encoder_2/config.json");
  const unet = read("unet/config.json");
  const kept = unet.projection_class_embeddings_input_dim - unet.addition_time_embed_dim;
  const narrowed = { cross_attention_dim: hiddenSize, projection_class_embeddings_input_dim: kept };
  write("unet/config.json", narrowed);
  write("model_index.json", {
    _class_name: "StableDiffusionXLImg2ImgPipeline",
    ...{ text_encoder: [null, null], tokenizer: [null, null] },
    ...{ requires_aesthetics_score: true, force_zeros_for_empty_prompt: false },
  });
  for (const name of ["text_encoder", "tokenizer"]) {
    rmSync(join(folder, name), { recursive: true });
  }
  changeTensors(folder, (name, columns) => {
    if (name === "add_embedding.linear_1.weight") return [0, kept];
    return /\.attn2\.to_[kv]\./.test(name) ? [columns - hiddenSize, columns] : null;
  });
  return folder;
}

// --- internal ---

type Columns = (name: string, count: number) => readonly [first: number, end: number] | null;

function changeTensors(folder: string, columnsOf: Columns): void {
  const change = (tensors: Tensors) => {
    for (const [name, tensor] of tensors) {
      const columns = columnsOf(name, tensor.shape[1] ?? 0);
      if (columns) tensors.set(name, cut(tensor, columns));
    }
  };
  changeFile(join(folder, "unet/diffusion_pytorch_model.safetensors"), change);
}

function cut(
  { bytes, dtype, shape }: RawTensor,
  [first, end]: readonly [number, number],
): RawTensor {
  const [rows, columns] = shape as [number, number];
  const size = bytes.length / rows / columns;
  const parts = Array.from({ length: rows }, (_, row) =>
    bytes.subarray((row * columns + first) * size, (row * columns + end) * size),
  );
  return { dtype, shape: [rows, end - first], bytes: Buffer.concat(parts) };
}
