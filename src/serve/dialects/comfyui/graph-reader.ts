/**
 * Values of a valid prompt, and its refusals at the node and the input that are in the way.
 */
import { numberOf } from "../../../metadata/foreign-json.ts";
import { type ComfyError, type NodeErrors, type PromptRefused, unsupported } from "./errors.ts";
import { type GraphNode, type Link, linkOf, type Prompt, plainValue } from "./graph.ts";
import { outputsRefused } from "./validate.ts";

export class GraphReader {
  constructor(readonly prompt: Prompt) {}

  node(id: string): GraphNode {
    return this.prompt[id]!;
  }

  type(id: string): string {
    return this.node(id).class_type;
  }

  value(id: string, input: string): unknown {
    return plainValue(this.prompt, this.node(id).inputs[input]);
  }

  number(id: string, input: string): number {
    return numberOf(this.value(id, input)) ?? Number.NaN;
  }

  text(id: string, input: string): string {
    return String(this.value(id, input));
  }

  /** The link of an input that is one: the types of links leave nothing else. */
  link(id: string, input: string): Link {
    return linkOf(this.node(id).inputs[input])!;
  }

  /** The node behind it. */
  source(id: string, input: string): string {
    return this.link(id, input)[0];
  }

  /** Refuses a second sampler whose `inputs` differ from those of the first. */
  checkSame(sampler: string, first: string, inputs: readonly string[]): void {
    for (const input of inputs) {
      const wanted = this.text(first, input);
      if (this.text(sampler, input) === wanted) continue;
      this.refuse(sampler, input, `must be that of the first sampler, ${wanted}`);
    }
  }

  refuse(id: string, input: string, why: string): never {
    throw refusedAt(this.prompt, id, unsupported(input, why));
  }
}

/** The error of a prompt that one node is in the way of. */
export function refusedAt(prompt: Prompt, id: string, error: ComfyError): PromptRefused {
  return outputsRefused({ [id]: nodeError(prompt, id, error) });
}

export function nodeError(prompt: Prompt, id: string, error: ComfyError): NodeErrors[string] {
  return { errors: [error], dependent_outputs: [], class_type: prompt[id]!.class_type };
}
