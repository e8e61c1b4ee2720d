/**
 * Reads ComfyUI's graph of an image ("prompt"): from the sampler back to the model, prompts and
 * size. Nodes of the default workflow and LoRAs are understood; of others the first input of the
 * same kind is followed, with a warning. Source: ComfyUI, nodes.py.
 */
import { escaped } from "../errors.ts";
import { isObject, type JsonObject, numberOf, textOf, wordsOf } from "./foreign-json.ts";
import { Recipe } from "./recipe.ts";

/** null for other objects. `recipe` takes what is read. */
export function recipeOfComfyUi(
  json: JsonObject,
  recipe = new Recipe("ComfyUI", "comfyui"),
): Recipe | null {
  const graph = new Graph(json, recipe);
  const samplers = graph.nodes.filter(({ type }) => /^KSampler(Advanced)?$/.test(type));
  if (graph.nodes.length === 0) return null;
  const first = samplers.find((node) => graph.startsEmpty(node)) ?? samplers[0];
  if (first === undefined) {
    recipe.warn("The graph has no KSampler: its settings are not read.");
    return recipe;
  }
  if (samplers.length > 1) {
    recipe.warn(`The graph has ${samplers.length} samplers: only the first is repeated.`);
  }
  readSampler(graph, first);
  const decode = graph.nodes.find(({ type }) => /^VAEDecode(Tiled)?$/.test(type));
  const loader = decode && graph.node(decode.inputs.vae);
  const name = loader?.type === "VAELoader" ? textOf(loader.inputs.vae_name) : undefined;
  if (name !== undefined) recipe.vae = { name };
  return recipe;
}

// --- internal ---

interface Node {
  id: string;
  type: string;
  inputs: JsonObject;
}

/** Longer chains are none that people build. */
const stepCountMax = 1000;

class Graph {
  readonly nodes: Node[];
  private readonly byId: Map<string, Node>;

  constructor(
    json: JsonObject,
    readonly recipe: Recipe,
  ) {
    this.nodes = Object.entries(json).flatMap(([id, node]) => {
      if (!isObject(node) || typeof node.class_type !== "string") return [];
      return [{ id, type: node.class_type, inputs: isObject(node.inputs) ? node.inputs : {} }];
    });
    this.byId = new Map(this.nodes.map((node) => [node.id, node]));
  }

  /** The node that an input is linked to: ["4", 0]. */
  node(input: unknown): Node | undefined {
    return Array.isArray(input) ? this.byId.get(wordsOf(input[0])) : undefined;
  }

  /**
   * The nodes from `input` back, each by the first of its inputs `through` that is a link. A circle
   * ends. Nodes that have both prompts hand the negative one on in their second slot.
   */
  *chain(input: unknown, through: readonly string[]): Generator<Node> {
    const seen = new Set<Node>();
    let node = this.node(input);
    let slot = slotOf(input);
    while (node !== undefined && !seen.has(node) && seen.size < stepCountMax) {
      seen.add(node);
      yield node;
      const { inputs } = node;
      const names = slot === 1 && through.includes("positive") ? ["negative", ...through] : through;
      const next: string | undefined = names.find((name) => Array.isArray(inputs[name]));
      node = next === undefined ? undefined : this.node(inputs[next]);
      slot = next === undefined ? 0 : slotOf(inputs[next]);
    }
  }

  /** A value that stands in the node, or in one that it is linked to. */
  value(input: unknown): unknown {
    if (!Array.isArray(input)) return input;
    for (const node of this.chain(input, valueNames)) {
      const name = valueNames.find((each) => isPlain(node.inputs[each]));
      if (name !== undefined) return node.inputs[name];
    }
    const type = this.node(input)?.type ?? "that is missing";
    this.recipe.warn(`What comes from the node ${escaped(type, 60)} is not read.`);
    return undefined;
  }

  startsEmpty({ inputs }: Node): boolean {
    return this.node(inputs.latent_image)?.type.startsWith("Empty") ?? false;
  }

  /** Says that a node is passed over. */
  skip({ type }: Node): void {
    this.recipe.warn(`The node ${escaped(type, 60)} is not repeated.`);
  }
}

/** Of the node that an input is linked to. */
function slotOf(input: unknown): unknown {
  return Array.isArray(input) ? input[1] : undefined;
}

/** Under which nodes of many authors keep a number or a text. */
const valueNames = [
  "value",
  "seed",
  "noise_seed",
  "int",
  "float",
  "text",
  "string",
  "Text",
  "prompt",
];

function isPlain(value: unknown): boolean {
  return typeof value === "string" || typeof value === "number";
}

function readSampler(graph: Graph, { type, inputs }: Node): void {
  const { recipe } = graph;
  const isAdvanced = type === "KSamplerAdvanced";
  recipe.take("seed", graph.value(isAdvanced ? inputs.noise_seed : inputs.seed), "seed");
  recipe.take("stepCount", graph.value(inputs.steps), "steps");
  recipe.take("guidanceScale", graph.value(inputs.cfg), "cfg");
  const sampler = textOf(graph.value(inputs.sampler_name)) ?? "euler";
  recipe.takeSampler(sampler, textOf(graph.value(inputs.scheduler)));
  const denoise = numberOf(graph.value(inputs.denoise)) ?? 1;
  const startsLater = (numberOf(graph.value(inputs.start_at_step)) ?? 0) > 0;
  if (denoise < 1 || startsLater || inputs.add_noise === "disable") {
    recipe.warn("The start from another image is not repeated.");
  }
  const end = numberOf(graph.value(inputs.end_at_step)) ?? Number.POSITIVE_INFINITY;
  if (end < (recipe.settings.stepCount ?? 0)) {
    recipe.warn(`The end after ${end} steps is not repeated: all are done.`);
  }
  const prompt = promptOf(graph, inputs.positive);
  const isZero = graph.node(inputs.negative)?.type === "ConditioningZeroOut";
  const negative = isZero ? null : promptOf(graph, inputs.negative);
  recipe.takePrompts(prompt.first, negative?.first);
  if (prompt.second !== prompt.first) recipe.settings.prompt2 = prompt.second;
  if (negative === null) recipe.settings.emptyNegative = "zeros";
  else if (negative.second !== negative.first) {
    recipe.settings.negativePrompt2 = negative.second;
  }
  readModel(graph, inputs.model);
  readLatent(graph, inputs.latent_image);
}

const conditioningInputs = ["conditioning", "positive", "conditioning_1", "conditioning_to"];

/** What each of the two text encoders reads. */
interface Prompts {
  first: string;
  second: string;
}

function promptOf(graph: Graph, input: unknown): Prompts {
  for (const node of graph.chain(input, conditioningInputs)) {
    const { type, inputs } = node;
    const text = (value: unknown) => textOf(graph.value(value)) ?? "";
    if (type === "CLIPTextEncode" || type === "CLIPTextEncodeSDXL") {
      readClipSkip(graph, inputs.clip);
      const [first, second] = [inputs.text_l ?? inputs.text, inputs.text_g ?? inputs.text];
      return { first: text(first), second: text(second) };
    }
    graph.skip(node);
  }
  return { first: "", second: "" };
}

/** -2 is the layer that SDXL is used with. */
function readClipSkip(graph: Graph, input: unknown): void {
  for (const { type, inputs } of graph.chain(input, ["clip"])) {
    if (type !== "CLIPSetLastLayer") continue;
    const layer = numberOf(graph.value(inputs.stop_at_clip_layer)) ?? -2;
    graph.recipe.take("clipSkip", -layer, "stop_at_clip_layer");
    return;
  }
}

function readModel(graph: Graph, input: unknown): void {
  const { recipe } = graph;
  for (const node of graph.chain(input, ["model"])) {
    const { type, inputs } = node;
    const name = textOf(inputs.lora_name);
    if (name !== undefined && /^LoraLoader(ModelOnly)?$/.test(type)) {
      const scale = numberOf(graph.value(inputs.strength_model)) ?? 1;
      const textScale = numberOf(graph.value(inputs.strength_clip)) ?? 0;
      // The chain is read from its end.
      recipe.loras.unshift({ name, scale, textScale });
    } else if (typeof inputs.ckpt_name === "string") {
      recipe.model = { name: inputs.ckpt_name };
    } else if (typeof inputs.unet_name === "string") {
      recipe.model = { name: inputs.unet_name };
    } else graph.skip(node);
  }
}

function readLatent(graph: Graph, input: unknown): void {
  for (const node of graph.chain(input, ["samples", "latent_image", "pixels", "image"])) {
    const { type, inputs } = node;
    if (!/^Empty.*Latent/.test(type)) {
      if (!type.startsWith("KSampler")) graph.skip(node);
      continue;
    }
    const width = numberOf(graph.value(inputs.width));
    const height = numberOf(graph.value(inputs.height));
    if (width !== undefined && height !== undefined) graph.recipe.takeSize(width, height);
    const count = numberOf(graph.value(inputs.batch_size)) ?? 1;
    if (count > 1) {
      graph.recipe.take("noiseBatch", count, "batch_size");
      graph.recipe.warn(
        `The image is one of a batch of ${count}: the first is repeated, and --noise-index 1 to ` +
          `${count - 1} are the others.`,
      );
    }
  }
}
