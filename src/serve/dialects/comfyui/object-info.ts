/**
 * Nodes as ComfyUI's /object_info describes them.
 * Source: ComfyUI, server.py (node_info).
 */
import type { InputType, NodeLists } from "./input-types.ts";
import { nodeTypeNames, nodeTypeOf } from "./node-types.ts";

/** One node, or all; an empty object for one that is not here. */
export function objectInfo(lists: NodeLists, name?: string) {
  const names = name === undefined ? nodeTypeNames : [name];
  return Object.fromEntries(names.flatMap((each) => infoOf(each, lists)));
}

/** Type and options of an input, as /object_info and errors show them. */
export function inputConfig(input: InputType, lists: NodeLists): unknown[] {
  const type = input.choices?.(lists) ?? input.type;
  return input.options === undefined ? [type] : [type, input.options];
}

// --- internal ---

/** Of output nodes, which write the graph into images. */
const hidden = { prompt: "PROMPT", extra_pnginfo: "EXTRA_PNGINFO" };

function infoOf(name: string, lists: NodeLists): [string, object][] {
  const type = nodeTypeOf(name);
  if (type === null) return [];
  const { inputs, outputs, title, category, description = "", isOutput = false } = type;
  const required = Object.fromEntries(
    Object.entries(inputs).map(([input, each]) => [input, inputConfig(each, lists)]),
  );
  const info = {
    input: { required, ...(isOutput && { hidden }) },
    input_order: {
      required: Object.keys(inputs),
      ...(isOutput && { hidden: Object.keys(hidden) }),
    },
    output: outputs,
    output_is_list: outputs.map(() => false),
    output_name: outputs,
    ...{ name, display_name: title, description, python_module: "nodes", category },
    output_node: isOutput,
  };
  return [[name, info]];
}
