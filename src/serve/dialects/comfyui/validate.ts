/**
 * Checks a prompt as ComfyUI does, with its errors: outputs that are valid run, the others are
 * listed.
 * Source: ComfyUI, execution.py (validate_prompt, validate_inputs).
 */
import { isObject, type JsonObject, wordsOf } from "../../../metadata/foreign-json.ts";
import { longWhole, looseNumber, looseText } from "../loose-values.ts";
import { type ComfyError, comfyError, type NodeErrors, PromptRefused } from "./errors.ts";
import { type GraphNode, nodesOf, type Prompt } from "./graph.ts";
import type { InputType, NodeLists } from "./input-types.ts";
import { nodeTypeOf } from "./node-types.ts";
import { inputConfig } from "./object-info.ts";

interface ValidPrompt {
  /** The nodes that valid outputs need, with values of their types. */
  prompt: Prompt;
  /** Ids of valid output nodes, in order. */
  outputs: string[];
  /** Of the others. */
  nodeErrors: NodeErrors;
}

/** Throws `PromptRefused` where no output is valid. */
export function validatePrompt(
  sent: unknown,
  lists: NodeLists,
  targets?: readonly string[],
): ValidPrompt {
  const nodes = nodesOf(sent);
  if (nodes === null) {
    throw new PromptRefused(comfyError("invalid_prompt", "The prompt is not a graph of nodes."));
  }
  if (nodes.size > nodeCountMax) {
    const message = `The prompt has more than ${nodeCountMax} nodes.`;
    throw new PromptRefused(comfyError("invalid_prompt", message));
  }
  const outputs = outputsOf(nodes, targets);
  const check = new Check(nodes, lists);
  const good = outputs.filter((id) => check.isValid(id));
  const bad = outputs.filter((id) => !good.includes(id));
  const nodeErrors = check.nodeErrors(bad);
  if (good.length > 0) return { prompt: check.prompt, outputs: good, nodeErrors };
  throw outputsRefused(nodeErrors);
}

/** The error of a prompt whose outputs all have errors. */
export function outputsRefused(nodeErrors: NodeErrors): PromptRefused {
  const all = Object.values(nodeErrors).flatMap(({ errors }) => errors);
  const details = all.map((error) => `${error.message}: ${error.details}`).join("\n");
  const type = "prompt_outputs_failed_validation";
  return new PromptRefused(
    comfyError(type, "Prompt outputs failed validation", details),
    nodeErrors,
  );
}

// --- internal ---

const nodeCountMax = 1000;
/** Lists longer than this are left out of errors, as in ComfyUI. */
const shownChoicesMax = 20;

function outputsOf(nodes: Map<string, JsonObject>, targets: readonly string[] | undefined) {
  const outputs: string[] = [];
  for (const [id, node] of nodes) {
    const details = `Node ID '#${id}'`;
    if (!("class_type" in node)) {
      const message = "Cannot execute because a node is missing the class_type property.";
      throw new PromptRefused(comfyError("invalid_prompt", message, details));
    }
    const type = nodeTypeOf(node.class_type);
    if (type === null) {
      const name = wordsOf(node.class_type).slice(0, 200);
      const message = `Cannot execute because node ${name} does not exist.`;
      throw new PromptRefused(comfyError("invalid_prompt", message, details));
    }
    if (type.isOutput && (targets?.includes(id) ?? true)) outputs.push(id);
  }
  if (outputs.length > 0) return outputs;
  throw new PromptRefused(comfyError("prompt_no_outputs", "Prompt has no outputs"));
}

/** Results by node, so that each is checked once. */
class Check {
  readonly prompt: Record<string, GraphNode> = Object.create(null);
  /** null while a node is being checked. */
  private readonly found = new Map<string, { isValid: boolean; errors: ComfyError[] } | null>();

  constructor(
    private readonly nodes: Map<string, JsonObject>,
    private readonly lists: NodeLists,
  ) {}

  isValid(id: string): boolean {
    const known = this.found.get(id);
    if (known !== undefined) return known?.isValid ?? false;
    this.found.set(id, null);
    const node = this.nodes.get(id)!;
    const type = nodeTypeOf(node.class_type)!;
    const sent = isObject(node.inputs) ? node.inputs : {};
    const inputs: Record<string, unknown> = {};
    const errors: ComfyError[] = [];
    let areLinksValid = true;
    for (const [name, input] of Object.entries(type.inputs)) {
      const value = Object.hasOwn(sent, name) ? sent[name] : undefined;
      const seen = this.input(name, input, value);
      if ("error" in seen) errors.push(seen.error);
      else if ("isLinkInvalid" in seen) areLinksValid = false;
      else inputs[name] = seen.value;
    }
    const isValid = errors.length === 0 && areLinksValid;
    this.found.set(id, { isValid, errors });
    if (isValid) this.prompt[id] = { class_type: wordsOf(node.class_type), inputs };
    return isValid;
  }

  /** Of the nodes behind the outputs `ids`. */
  nodeErrors(ids: readonly string[]): NodeErrors {
    const all: NodeErrors = Object.create(null);
    if (ids.length === 0) return all;
    for (const [id, result] of this.found) {
      if (result === null || result.errors.length === 0) continue;
      const classType = wordsOf(this.nodes.get(id)!.class_type);
      all[id] = { errors: result.errors, dependent_outputs: [...ids], class_type: classType };
    }
    return all;
  }

  private input(
    name: string,
    input: InputType,
    value: unknown,
  ): { value: unknown } | { error: ComfyError } | { isLinkInvalid: true } {
    const info = { input_name: name };
    if (value === undefined) {
      const message = "Required input is missing";
      return { error: comfyError("required_input_missing", message, name, info) };
    }
    if (!isPlain(input) && !Array.isArray(value)) return this.link(name, input, []);
    if (Array.isArray(value)) return this.link(name, input, value);
    return checkedValue(name, input, value, this.lists);
  }

  private link(name: string, input: InputType, value: unknown[]) {
    const info = { input_name: name, input_config: inputConfig(input, this.lists) };
    const [id, slot] = [wordsOf(value[0]), value[1]];
    const source = value.length === 2 ? this.nodes.get(id) : undefined;
    const outputs = source === undefined ? [] : (nodeTypeOf(source.class_type)?.outputs ?? []);
    const received = Number.isSafeInteger(slot) ? outputs[slot as number] : undefined;
    if (received === undefined) {
      const message = "Bad linked input, must be a length-2 list of [node_id, slot_index]";
      const extra = { ...info, received_value: shown(value) };
      return { error: comfyError("bad_linked_input", message, name, extra) };
    }
    if (received !== input.type) {
      const message = "Return type mismatch between linked nodes";
      const details = `${name}, received_type(${received}) mismatch input_type(${input.type})`;
      const extra = { ...info, received_type: received, linked_node: [id, slot] };
      return { error: comfyError("return_type_mismatch", message, details, extra) };
    }
    if (this.found.get(id) === null) {
      const message = "Dependency cycle detected";
      return { error: comfyError("dependency_cycle", message, name, info) };
    }
    return this.isValid(id) ? { value: [id, slot] } : { isLinkInvalid: true as const };
  }
}

/** Other inputs are links alone. */
function isPlain({ type }: InputType): boolean {
  return ["INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"].includes(type);
}

function checkedValue(name: string, input: InputType, sent: unknown, lists: NodeLists) {
  const value = isObject(sent) && "__value__" in sent ? sent.__value__ : sent;
  const info = {
    input_name: name,
    input_config: inputConfig(input, lists),
    received_value: shown(value),
  };
  const converted = convertedTo(input.type, value);
  if (converted === undefined) {
    const message = `Failed to convert an input value to a ${input.type} value`;
    const details = `${name}, ${JSON.stringify(shown(value))}`;
    return { error: comfyError("invalid_input_type", message, details, info) };
  }
  const number = Number(converted);
  const { min, max } = input.options ?? {};
  if (min !== undefined && number < min) {
    const message = `Value ${converted} smaller than min of ${min}`;
    return { error: comfyError("value_smaller_than_min", message, name, info) };
  }
  if (max !== undefined && number > max) {
    const message = `Value ${converted} bigger than max of ${max}`;
    return { error: comfyError("value_bigger_than_max", message, name, info) };
  }
  if (input.choices === undefined) return { value: converted };
  const choices = input.choices(lists);
  const chosen = wordsOf(converted);
  if (input.accepts?.(chosen, lists) ?? choices.includes(chosen)) return { value: converted };
  const isLong = choices.length > shownChoicesMax;
  const list = isLong ? `(list of length ${choices.length})` : JSON.stringify(choices);
  const details = `${name}: '${chosen.slice(0, 200)}' not in ${list}`;
  const extra = isLong ? { ...info, input_config: null } : info;
  return { error: comfyError("value_not_in_list", "Value not in list", details, extra) };
}

/** As Python's int, float, bool and str convert; whole numbers of 64 bits stay texts of digits. */
function convertedTo(type: string, value: unknown): string | number | boolean | undefined {
  if (type === "STRING" || type === "COMBO") return looseText(value);
  if (type === "BOOLEAN") return Boolean(value);
  const number = longWhole(value) ?? looseNumber(value);
  return type === "INT" && typeof number === "number" ? Math.trunc(number) : number;
}

/** Errors repeat what was sent, but not all of it. */
function shown(value: unknown): unknown {
  const text = JSON.stringify(value) ?? "null";
  return text.length <= 1000 ? value : `${text.slice(0, 1000)} ...`;
}
