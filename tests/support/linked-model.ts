/**
 * A copy of the reference model whose text files a test may change; its weights are links, because
 * copies of them would take most of a test's time.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
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

/**
 * By file: keys to replace (undefined takes a key out), new text, or null, which takes the file
 * away.
 */
export type Changes = Record<string, Record<string, unknown> | string | null>;

/** As `linkedModel`, with changed files. */
export function changedModel(parent: string, changes: Changes): string {
  const folder = linkedModel(parent);
  for (const [file, change] of Object.entries(changes)) {
    const path = join(folder, file);
    if (change === null) rmSync(path, { recursive: true });
    else if (typeof change === "string") writeFileSync(path, change);
    else {
      const before = JSON.parse(readFileSync(path, "utf8"));
      writeFileSync(path, JSON.stringify({ ...before, ...change }));
    }
  }
  return folder;
}
