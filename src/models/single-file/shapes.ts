/**
 * The shapes of a file's tensors below one prefix of their keys, and where the networks of a
 * single-file checkpoint begin.
 */
import type { SafetensorsHeader } from "../safetensors-header.ts";

export type Header = Pick<SafetensorsHeader, "tensors" | "metadata">;

/** Tensors by their keys without `prefix`. */
export class Shapes {
  constructor(
    readonly tensors: Header["tensors"],
    readonly prefix: string,
  ) {}

  has(name: string): boolean {
    return this.tensors.has(this.prefix + name);
  }

  /** One dimension of a tensor; 0 where there is none. */
  dimension(name: string, index: number): number {
    return this.tensors.get(this.prefix + name)?.shape.at(index) ?? 0;
  }

  /** How many of `name(0)`, `name(1)`, ... there are in a row. */
  count(name: (index: number) => string): number {
    let count = 0;
    while (this.has(name(count))) count += 1;
    return count;
  }

  at(prefix: string): Shapes {
    return new Shapes(this.tensors, this.prefix + prefix);
  }
}

/** Prefixes of the UNet's keys, the usual first: checkpoints, ComfyUI's saved models, none. */
const unetPrefixes = ["model.diffusion_model.", "diffusion_model.", "unet.", ""];

/** The networks that a single file can hold: a key of each, and how keys of its blocks begin. */
const parts = {
  unet: {
    prefixes: unetPrefixes,
    key: "input_blocks.0.0.weight",
    blocks: /^(input_blocks|middle_block|output_blocks)\.\d/,
  },
  clip: {
    prefixes: ["conditioner.embedders.0.transformer.", "text_encoders.clip_l.transformer."],
    key: "text_model.embeddings.token_embedding.weight",
    blocks: /^text_model\.encoder\.layers\.\d/,
  },
  openClip: {
    prefixes: ["conditioner.embedders.1.model.", "conditioner.embedders.0.model."],
    key: "token_embedding.weight",
    blocks: /^transformer\.resblocks\.\d/,
  },
  /** Some programs leave the second encoder in transformers' names. */
  clip2: {
    prefixes: [
      "conditioner.embedders.1.model.transformer.",
      "conditioner.embedders.1.transformer.",
      "conditioner.embedders.1.model.",
      "text_encoders.clip_g.transformer.",
    ],
    key: "text_model.embeddings.token_embedding.weight",
    blocks: /^text_model\.encoder\.layers\.\d/,
  },
  vae: {
    prefixes: ["first_stage_model.", "vae.", ""],
    key: "decoder.conv_in.weight",
    blocks: /^((encoder|decoder)\.(down|mid|up)(_blocks?)?|(post_)?quant_conv)\./,
  },
} as const;

export type PartName = keyof typeof parts;

/** The key, without a prefix, that a file with the part has. */
export function keyOf(part: PartName): string {
  return parts[part].key;
}

/** Those of `keys` that belong to blocks of the part; below any of its prefixes if it is absent. */
export function keysInBlocks(header: Header, part: PartName, keys: readonly string[]): string[] {
  const { prefixes, blocks } = parts[part];
  const own = partOf(header, part)?.prefix;
  const possible = own === undefined ? prefixes : [own];
  return keys.filter((key) =>
    possible.some((prefix) => key.startsWith(prefix) && blocks.test(key.slice(prefix.length))),
  );
}

/** The part's tensors; null where the file has no such part. */
export function partOf(header: Header, part: PartName): Shapes | null {
  const { prefixes, key } = parts[part];
  const prefix = prefixes.find((each) => header.tensors.has(each + key));
  return prefix === undefined ? null : new Shapes(header.tensors, prefix);
}
