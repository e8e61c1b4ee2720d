/**
 * Random ControlNets for the golden model, their weights from the formula of
 * tests/reference/formula_weights.py: tests/reference/make_controls.py makes the same.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { weightsFileBytes } from "../../src/bench/support/formula-weights.ts";
import { readSafetensorsHeader } from "../../src/models/safetensors-header.ts";
import { rawFile, readRaw } from "./model-copy.ts";

const unet = join(import.meta.dir, "../fixtures/golden/model/unet");

export type ControlKind = "plain" | "small" | "union" | "promax" | "adapter";

const folders: string[] = [];

/** A folder in diffusers' layout. */
export function controlFolder(kind: ControlKind, changes: object = {}): string {
  const folder = join(newFolder(), kind);
  mkdirSync(folder);
  writeFileSync(
    join(folder, "config.json"),
    JSON.stringify({ ...controlConfig(kind), ...changes }),
  );
  const path = `control_${kind}/diffusion_pytorch_model.safetensors`;
  const bytes = weightsFileBytes({ path, dtype: "F32", shapes: controlShapes(kind) });
  writeFileSync(join(folder, "diffusion_pytorch_model.safetensors"), bytes);
  return folder;
}

/** One file with the same weights, keys as `rename` has them. */
export function controlFile(kind: ControlKind, rename: (key: string) => string): string {
  const tensors = readRaw(join(controlFolder(kind), "diffusion_pytorch_model.safetensors"));
  const path = join(newFolder(), "network.safetensors");
  writeFileSync(path, rawFile(new Map([...tensors].map(([key, each]) => [rename(key), each]))));
  return path;
}

export function removeControls(): void {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
}

/** As diffusers' config.json has it. */
export function controlConfig(kind: ControlKind): object {
  if (kind === "adapter") return { _class_name: "T2IAdapter", adapter_type: "full_adapter_xl" };
  const {
    _class_name: _,
    up_block_types: __,
    ...own
  } = JSON.parse(readFileSync(join(unet, "config.json"), "utf8"));
  return {
    ...own,
    _class_name: typeCounts[kind] ? "ControlNetUnionModel" : "ControlNetModel",
    conditioning_embedding_out_channels: embedding,
    ...(kind === "small" && {
      down_block_types: widths.map(() => "DownBlock2D"),
      mid_block_type: "UNetMidBlock2D",
    }),
    ...(typeCounts[kind] && {
      num_control_type: typeCounts[kind],
      num_trans_channel: widths[0],
      num_proj_channel: widths[0],
      num_trans_layer: 1,
    }),
  };
}

/** The UNet's first half, and what a ControlNet has beside it. */
export function controlShapes(kind: ControlKind): Record<string, number[]> {
  if (kind === "adapter") return adapterShapes();
  const { tensors } = readSafetensorsHeader(join(unet, "diffusion_pytorch_model.safetensors"));
  const half = /^(conv_in|time_embedding|add_embedding|down_blocks|mid_block)\./;
  const without = /attentions|^mid_block\.resnets\.1/;
  const shapes: Record<string, number[]> = {};
  const add = (name: string, ...shape: number[]) => {
    shapes[`${name}.weight`] = shape;
    shapes[`${name}.bias`] = [shape[0]!];
  };
  for (const [key, { shape }] of tensors) {
    if (half.test(key) && !(kind === "small" && without.test(key))) shapes[key] = [...shape];
  }
  const hint = "controlnet_cond_embedding";
  add(`${hint}.conv_in`, embedding[0]!, 3, 3, 3);
  for (const [i, width] of embedding.slice(0, -1).entries()) {
    add(`${hint}.blocks.${2 * i}`, width, width, 3, 3);
    add(`${hint}.blocks.${2 * i + 1}`, embedding[i + 1]!, width, 3, 3);
  }
  add(`${hint}.conv_out`, widths[0]!, embedding.at(-1)!, 3, 3);
  const outs = [32, 32, 32, 32, 64, 64, 64, 128, 128];
  for (const [i, width] of outs.entries()) add(`controlnet_down_blocks.${i}`, width, width, 1, 1);
  add("controlnet_mid_block", 128, 128, 1, 1);
  const typeCount = typeCounts[kind];
  if (typeCount === undefined) return shapes;
  const width = widths[0]!;
  shapes.task_embedding = [typeCount, width];
  add("spatial_ch_projs", width, width);
  add("control_add_embedding.linear_1", 4 * width, 32 * typeCount);
  add("control_add_embedding.linear_2", 4 * width, 4 * width);
  const block = "transformer_layes.0";
  shapes[`${block}.attn.in_proj_weight`] = [3 * width, width];
  shapes[`${block}.attn.in_proj_bias`] = [3 * width];
  add(`${block}.attn.out_proj`, width, width);
  add(`${block}.mlp.c_fc`, 4 * width, width);
  add(`${block}.mlp.c_proj`, width, 4 * width);
  for (const norm of ["ln_1", "ln_2"]) {
    shapes[`${block}.${norm}.weight`] = [width];
    shapes[`${block}.${norm}.bias`] = [width];
  }
  return shapes;
}

// --- internal ---

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-control-"));
  folders.push(folder);
  return folder;
}

const embedding = [8, 16, 24, 32];
const widths = [32, 64, 128];
/** Of union models: xinsir's, and promax. */
const typeCounts: Partial<Record<ControlKind, number>> = { union: 6, promax: 8 };

/** full_adapter_xl with the golden UNet's widths. */
function adapterShapes(): Record<string, number[]> {
  const shapes: Record<string, number[]> = {};
  const add = (name: string, ...shape: number[]) => {
    shapes[`adapter.${name}.weight`] = shape;
    shapes[`adapter.${name}.bias`] = [shape[0]!];
  };
  add("conv_in", widths[0]!, 3 * 16 * 16, 3, 3);
  const channels = [...widths, widths.at(-1)!];
  for (const [i, width] of channels.entries()) {
    const below = channels[Math.max(0, i - 1)]!;
    if (below !== width) add(`body.${i}.in_conv`, width, below, 1, 1);
    for (const j of [0, 1]) {
      add(`body.${i}.resnets.${j}.block1`, width, width, 3, 3);
      add(`body.${i}.resnets.${j}.block2`, width, width, 1, 1);
    }
  }
  return shapes;
}
