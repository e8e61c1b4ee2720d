/**
 * Where a single-file checkpoint has the weights of one network, and which of its tensors no
 * network has.
 */
import type { WeightNames, WeightSource } from "../model.ts";
import type { ModuleName } from "../names.ts";
import type { Header, Shapes } from "./shapes.ts";

/** A network's weights, by diffusers' keys. */
export interface NetworkNames {
  names: WeightNames;
  /** Keys of the file that the model needs and that are not there. */
  missing: string[];
}

/**
 * Maps the keys below `part`'s prefix: every weight and bias of `modules`, and what else the file
 * has for them, such as the scales of 8-bit weights.
 */
export function weightNames(part: Shapes, modules: readonly ModuleName[]): NetworkNames {
  const names = new Map<string, WeightSource>();
  const missing: string[] = [];
  const plain = new Map<string, string>();
  for (const { diffusers, original, joint = ".", part: third, transposed } of modules) {
    if (joint === ".") plain.set(original, diffusers);
    const at = part.prefix + original;
    const ends = joint === null ? ["weight"] : ["weight", "bias"];
    for (const end of ends) {
      const name = joint === null ? at : `${at}${joint}${end}`;
      names.set(`${diffusers}.${end}`, {
        name,
        ...(third && { part: third }),
        ...(transposed && { transposed }),
      });
      if (end === "weight" && !part.tensors.has(name)) missing.push(name);
    }
  }
  for (const key of part.tensors.keys()) {
    if (!key.startsWith(part.prefix)) continue;
    const dot = key.lastIndexOf(".");
    const diffusers = plain.get(key.slice(part.prefix.length, dot));
    const end = key.slice(dot + 1);
    if (diffusers !== undefined) names.set(`${diffusers}.${end}`, { name: key });
  }
  return { names, missing: [...new Set(missing)] };
}

/** Keys that none of the networks has and that no checkpoint is known to have in vain. */
export function unknownKeys(header: Header, networks: readonly WeightNames[]): string[] {
  const known = new Set(networks.flatMap((names) => [...names.values()].map(({ name }) => name)));
  return [...header.tensors.keys()].filter((key) => {
    return !known.has(key) && !ignored.some((pattern) => pattern.test(key));
  });
}

// --- internal ---

/**
 * What training and other programs leave in checkpoints, and marks that are read elsewhere.
 * Source: stable-diffusion.cpp model_loader.cpp, ComfyUI's saved checkpoints.
 */
const ignored: readonly RegExp[] = [
  /(^|\.)position_ids$/,
  /(^|\.)logit_scale$/,
  /^conditioner\.embedders\.0\.transformer\.text_projection(\.weight)?$/,
  /^model_ema\./,
  /^embedding_manager\./,
  /^first_stage_model\.loss\./,
  /^(denoiser\.sigmas|betas|alphas_cumprod(_prev)?|lvlb_weights|logvar)$/,
  /^(sqrt_|log_one_minus_|posterior_)/,
  /^((model\.)?diffusion_model\.)?(v_pred|ztsnr|scaled_fp8)$/,
  /\.(scaled_fp8)$/,
];
