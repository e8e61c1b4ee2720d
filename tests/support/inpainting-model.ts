/**
 * The golden model with a UNet of nine input channels: those that it has more are its own, halved
 * and in reverse order, as in tests/reference/make_model_shapes.py.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import type { Model } from "../../src/models/model.ts";
import { copyModel, type RawTensor } from "./model-copy.ts";

export async function inpaintingModel(): Promise<Model> {
  const folder = copyModel("unet/diffusion_pytorch_model.safetensors", (tensors) => {
    tensors.set("conv_in.weight", widened(tensors.get("conv_in.weight")!));
  });
  const path = join(folder, "unet/config.json");
  const config = JSON.parse(readFileSync(path, "utf8"));
  writeFileSync(path, JSON.stringify({ ...config, in_channels: 9 }));
  return await openModelFolder(folder);
}

// --- internal ---

/** (out, 4, 3, 3) to (out, 9, 3, 3). */
function widened({ bytes, dtype, shape }: RawTensor): RawTensor {
  if (dtype !== "F16") throw new Error(`conv_in is ${dtype}`);
  const values = Float32Array.from(new Float16Array(Uint8Array.from(bytes).buffer));
  const taps = 9;
  const rows = Array.from({ length: shape[0]! }, (_, row) => {
    const channel = (i: number) => values.subarray((4 * row + i) * taps, (4 * row + i + 1) * taps);
    const more = [3, 2, 1, 0, 0].flatMap((i) => [...channel(i)].map((value) => value / 2));
    return [...values.subarray(4 * row * taps, 4 * (row + 1) * taps), ...more];
  });
  const wide = Float32Array.from(rows.flat());
  return { dtype: "F32", shape: [shape[0]!, taps, 3, 3], bytes: new Uint8Array(wide.buffer) };
}
