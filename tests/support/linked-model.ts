/**
 * A copy of the reference model whose text files a test may change; its weights are links, because
 * copies of them would take most of a test's time.
 */
import { cpSync, mkdtempSync, symlinkSync } from "node:fs";
import { join } from "node:path";

export const golden = join(import.meta.dir, "../fixtures/golden/model");

/** A new folder in `parent`. */
export function linkedModel(parent: string): string {
  const folder = mkdtempSync(join(parent, "model-"));
  cpSync(golden, folder, {
    recursive: true,
    filter: (source) => !source.endsWith(".safetensors"),
  });
  for (const [part, stem] of [
    ["text_encoder", "model"],
    ["text_encoder_2", "model"],
    ["unet", "diffusion_pytorch_model"],
    ["vae", "diffusion_pytorch_model"],
  ] as const) {
    const name = `${stem}.safetensors`;
    symlinkSync(join(golden, part, name), join(folder, part, name));
  }
  return folder;
}
