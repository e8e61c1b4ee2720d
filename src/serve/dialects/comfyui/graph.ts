/**
 * A prompt of ComfyUI: nodes by id, with inputs that are values or links, ["4", 0].
 */
import { isObject, type JsonObject } from "../../../metadata/foreign-json.ts";

export interface GraphNode {
  class_type: string;
  inputs: Readonly<Record<string, unknown>>;
}

/** A valid prompt; an object without a prototype, since ids are anything. */
export type Prompt = Readonly<Record<string, GraphNode>>;

export type Link = readonly [id: string, slot: number];

/** The link that an input is; null for values. */
export function linkOf(value: unknown): Link | null {
  if (!Array.isArray(value) || value.length !== 2) return null;
  const [id, slot]: unknown[] = value;
  return typeof id === "string" && Number.isSafeInteger(slot) ? [id, slot as number] : null;
}

/** The nodes that `ids` need, each behind those that it needs: ComfyUI's order of execution. */
export function orderOf(prompt: Prompt, ids: readonly string[]): string[] {
  const done = new Set<string>();
  const visit = (id: string) => {
    if (done.has(id)) return;
    const links = Object.values(prompt[id]!.inputs).map(linkOf);
    for (const link of links) if (link !== null && !done.has(link[0])) visit(link[0]);
    done.add(id);
  };
  for (const id of ids) visit(id);
  return [...done];
}

/** The nodes from `input` back, each by its input of one of the names `through`. */
export function chainOf(prompt: Prompt, input: unknown, through: readonly string[]): string[] {
  const ids: string[] = [];
  for (let link = linkOf(input); link !== null; ) {
    ids.push(link[0]);
    const { inputs } = prompt[link[0]]!;
    link = through.map((name) => linkOf(inputs[name])).find((next) => next !== null) ?? null;
  }
  return ids;
}

/**
 * The nodes from a sampler's conditioning back to the one that encodes it. Those that have both
 * prompts hand the negative one on in their second slot.
 */
export function conditioningChain(prompt: Prompt, input: unknown): string[] {
  const ids: string[] = [];
  for (let link = linkOf(input); link !== null; ) {
    const [id, slot] = link;
    ids.push(id);
    const { conditioning, positive, negative } = prompt[id]!.inputs;
    link = linkOf(conditioning ?? (slot === 1 ? negative : positive));
  }
  return ids;
}

/** A value that stands in the node, or in a primitive node that it is linked to. */
export function plainValue(prompt: Prompt, input: unknown): unknown {
  const link = linkOf(input);
  return link === null ? input : prompt[link[0]]!.inputs.value;
}

/** The nodes of a prompt as it was sent; null for what has other shapes. */
export function nodesOf(prompt: unknown): Map<string, JsonObject> | null {
  if (!isObject(prompt)) return null;
  const nodes = Object.entries(prompt);
  const isGraph = nodes.every(([, node]) => isObject(node));
  return isGraph ? new Map(nodes as [string, JsonObject][]) : null;
}
