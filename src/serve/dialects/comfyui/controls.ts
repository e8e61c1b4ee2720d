/**
 * ControlNets between the prompts and the sampler as settings of a request.
 * Source: ComfyUI, nodes.py (ControlNetApply, ControlNetApplyAdvanced) and
 * comfy_extras/nodes_controlnet.py (SetUnionControlNetType).
 */
import { controlTypes } from "../../../settings/control.ts";
import type { RequestSettings } from "../../../settings/table.ts";
import type { Capabilities } from "../../capabilities.ts";
import { nameIn } from "../listed-names.ts";
import { unlessUsual } from "../usual-values.ts";
import { chainOf, type Link } from "./graph.ts";
import type { GraphReader } from "./graph-reader.ts";

type ControlSettings = Pick<
  RequestSettings,
  "controlnet" | "controlScale" | "controlStart" | "controlEnd" | "controlType"
>;

interface Controls {
  settings: Partial<ControlSettings>;
  /** Their hints. */
  images: Link[];
}

const steers = /^ControlNetApply(Advanced)?$/;

/** The nodes of a prompt's chain that steer. */
export function controlNodes(graph: GraphReader, chain: readonly string[]): string[] {
  return chain.filter((id) => steers.test(graph.type(id)));
}

/** One that is of the positive prompt alone steers both, as all do here. */
export function checkControls(
  graph: GraphReader,
  sampler: string,
  { positive, negative }: { positive: readonly string[]; negative: readonly string[] },
): void {
  const ofBoth = (id: string) => graph.type(id) === "ControlNetApplyAdvanced";
  if (positive.filter(ofBoth).join() === negative.join()) return;
  graph.refuse(sampler, "negative", "both prompts must come from the same ControlNetApplyAdvanced");
}

/** Of the nodes of the positive prompt. */
export function controlsOf(
  graph: GraphReader,
  nodes: readonly string[],
  lists: Pick<Capabilities, "controlnets">,
): Controls {
  if (nodes.length === 0) return { settings: {}, images: [] };
  const number = (id: string, input: string, otherwise: number) => {
    return graph.type(id) === "ControlNetApply" ? otherwise : graph.number(id, input);
  };
  const all = <T>(read: (id: string) => T, usual: T) => unlessUsual(nodes.map(read), usual);
  const types = nodes.map((id) => typeOf(graph, id));
  const isUnion = types.some((type) => type !== null);
  return {
    settings: {
      controlnet: nodes.map((id) => nameOf(graph, id, lists)),
      controlScale: all((id) => graph.number(id, "strength"), 1),
      controlStart: all((id) => number(id, "start_percent", 0), 0),
      controlEnd: all((id) => number(id, "end_percent", 1), 1),
      ...(isUnion && { controlType: types.map((type) => type ?? 0) }),
    },
    images: nodes.map((id) => graph.link(id, "image")),
  };
}

// --- internal ---

/** From the loader on. */
function networkChain(graph: GraphReader, id: string): string[] {
  return chainOf(graph.prompt, graph.node(id).inputs.control_net, ["control_net"]);
}

function nameOf(
  graph: GraphReader,
  id: string,
  { controlnets }: Pick<Capabilities, "controlnets">,
) {
  const name = graph.text(networkChain(graph, id).at(-1)!, "control_net_name");
  return nameIn(controlnets, name) ?? name;
}

/** null where none is set. */
function typeOf(graph: GraphReader, id: string): number | null {
  const node = networkChain(graph, id).find((each) => {
    return graph.type(each) === "SetUnionControlNetType";
  });
  if (node === undefined) return null;
  // "canny/lineart/anime_lineart/mlsd" is one type.
  const names = graph.text(node, "type").split("/");
  return controlTypes.findIndex((type) => type.some((name) => names.includes(name)));
}
