/**
 * VAEs in files of their own: the golden model's, with diffusers' keys or the original ones.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Model } from "../../src/models/model.ts";
import { vaeModuleNames } from "../../src/models/names.ts";
import { rawFile, readRaw, type Tensors } from "./model-copy.ts";

const folders: string[] = [];

export function removeVaes(): void {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
}

/** Writes a file of that name and gives its path. */
export function writeVae(name: string, tensors: Tensors): string {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-vae-"));
  folders.push(folder);
  const path = join(folder, name);
  writeFileSync(path, rawFile(tensors));
  return path;
}

export function vaeTensors(model: Model): Tensors {
  return readRaw(model.weights.vae.files[0]!);
}

/** The same under LDM's keys, where the attention's matrices are convolutions. */
export function ldmTensors(model: Model, prefix: string): Tensors {
  const tensors = vaeTensors(model);
  const renamed: Tensors = new Map();
  for (const { diffusers, original } of vaeModuleNames(model.vae)) {
    for (const end of ["weight", "bias"]) {
      const tensor = tensors.get(`${diffusers}.${end}`);
      if (tensor === undefined) throw new Error(`the VAE has no ${diffusers}.${end}`);
      const isMatrix = tensor.shape.length === 2;
      const shape = isMatrix ? [...tensor.shape, 1, 1] : tensor.shape;
      renamed.set(`${prefix}${original}.${end}`, { ...tensor, shape });
    }
  }
  if (renamed.size !== tensors.size) throw new Error("the VAE has weights without a name");
  return renamed;
}
