/**
 * Inputs of ComfyUI's nodes: kinds of values, names to choose from, and limits.
 */
import type { Capabilities } from "../../capabilities.ts";
import { modelNamed, nameIn } from "../listed-names.ts";

/** What of this server nodes list. */
export interface NodeLists extends Capabilities {
  /** Names of images that were uploaded. */
  inputImages: readonly string[];
}

/** Lists of models and what goes with them. */
export type ListName = "models" | "loras" | "vaes" | "embeddings" | "controlnets" | "upscalers";

/** A kind of value that nodes hand on, as "MODEL". */
export type ValueType = string;

export interface InputType {
  /** Names to choose from, of the server's lists. */
  choices?: (lists: NodeLists) => readonly string[];
  /** Whether a name can be chosen. Default: where it is one of the choices. */
  accepts?: (name: string, lists: NodeLists) => boolean;
  type: ValueType;
  options?: Readonly<Record<string, unknown>> & { min?: number; max?: number };
}

export interface NodeType {
  title: string;
  category: string;
  description?: string;
  inputs: Readonly<Record<string, InputType>>;
  outputs: readonly ValueType[];
  isOutput?: true;
}

/** ComfyUI's MAX_RESOLUTION. */
export const sideMax = 16384;

export const model = { type: "MODEL" } as const;
export const clip = { type: "CLIP" } as const;
export const vae = { type: "VAE" } as const;
export const conditioning = { type: "CONDITIONING" } as const;
export const latent = { type: "LATENT" } as const;
export const image = { type: "IMAGE" } as const;
export const mask = { type: "MASK" } as const;
export const controlNet = { type: "CONTROL_NET" } as const;
export const upscaleModel = { type: "UPSCALE_MODEL" } as const;

export function whole(of: number, min: number, max: number, step?: number): InputType {
  return { type: "INT", options: { default: of, min, max, ...(step !== undefined && { step }) } };
}

export function number(of: number, min: number, max: number, step = 0.01): InputType {
  return { type: "FLOAT", options: { default: of, min, max, step } };
}

export function flag(of: boolean): InputType {
  return { type: "BOOLEAN", options: { default: of } };
}

/** One of a list of this server, perhaps with its file's ending, which lists leave out. */
export function listed(of: ListName): InputType {
  const find = (name: string, lists: NodeLists) =>
    of === "models" ? modelNamed(lists, name) : nameIn(lists[of], name);
  return {
    type: "COMBO",
    choices: (lists) => lists[of].map(({ name }) => name),
    accepts: (name, lists) => find(name, lists) !== null,
  };
}

export function choice(...names: string[]): InputType {
  return { type: "COMBO", choices: () => names };
}
