/**
 * The shape that a job has: one sampler, from an empty latent or from an image, decoded once, with
 * prompts, LoRAs and VAE of the same model; or two samplers, of two passes or of two models.
 */
import { checkControls, controlNodes } from "./controls.ts";
import { type Enlargement, imageEnlargement, nodeOf } from "./enlargement.ts";
import { type NodeErrors, unsupported } from "./errors.ts";
import { chainOf, conditioningChain } from "./graph.ts";
import { type GraphReader, nodeError } from "./graph-reader.ts";
import { type LatentStart, latentStart } from "./latent-start.ts";
import { type Refined, refinedOf, refinerEncoders } from "./refined.ts";
import { type SecondPass, secondPass } from "./second-pass.ts";
import { outputsRefused } from "./validate.ts";

interface PlainGraph {
  /** Ids of nodes. */
  decode: string;
  /** The last one, and that of the first pass. */
  sampler: string;
  first: string;
  start: LatentStart;
  second: SecondPass | null;
  refined: Refined | null;
  /** What enlarges the decoded image behind the samplers; null for nothing. */
  enlarged: Enlargement | null;
  controls: readonly string[];
  /** The node that loads another VAE, or a refiner with its own; null for the model's own. */
  vae: string | null;
}

/** Of outputs behind VAEDecode. Throws `PromptRefused` for other shapes. */
export function checkPlainGraph(graph: GraphReader, outputs: readonly string[]): PlainGraph {
  const shown = outputs.map((id) => shownBy(graph, id)!);
  const decodes = shown.map(({ from }) => from);
  const samplers = decodes.map((id) => graph.source(id, "samples"));
  const [decode, sampler] = [decodes[0]!, samplers[0]!];
  for (const [place, id] of outputs.entries()) {
    if (samplers[place] !== sampler) {
      graph.refuse(id, "images", "one prompt has one sampler: send one each");
    }
    if (enlargers(shown[place]!) !== enlargers(shown[0]!)) {
      graph.refuse(id, "images", "one prompt shows images of one size: send one each");
    }
  }
  if (!graph.type(sampler).startsWith("KSampler")) {
    graph.refuse(decode, "samples", "must come from a sampler");
  }
  const refined = refinedOf(graph, sampler);
  const second = refined === null ? secondPass(graph, sampler) : null;
  const first = refined?.base ?? second?.first ?? sampler;
  const start = latentStart(graph, first);
  if (first !== sampler && start.pixels !== null) {
    graph.refuse(sampler, "latent_image", "two samplers start from an empty latent");
  }
  const enlarged = nodeOf(shown[0]!) === null ? null : shown[0]!;
  if (enlarged !== null && (first !== sampler || start.pixels !== null)) {
    const shape = "one sampler from an empty latent";
    graph.refuse(nodeOf(enlarged)!, "image", `what is enlarged last must be of ${shape}`);
  }
  const { checkpoint, controls } = checkModel(graph, first, start);
  const coders = [...decodes, ...(second?.coders ?? [])];
  if (start.pixels !== null) coders.push(start.id);
  const vae = graph.source(decode, "vae");
  for (const id of coders) checkVae(graph, id, vae);
  for (const id of refined === null ? [] : refinerEncoders(graph, sampler)) {
    checkSdxl(graph, id, start);
  }
  const shape = { decode, sampler, first, start, second, refined, enlarged, controls };
  return { ...shape, vae: vaeOf(graph, decode, [checkpoint, refined?.loader]) };
}

/**
 * Outputs that show what is generated, and the errors of those that show what is not, as an image
 * to start from. Throws where there are none of the first.
 */
export function splitOutputs(graph: GraphReader, outputs: readonly string[]) {
  const isShown = (id: string) => shownBy(graph, id) !== null;
  const shown = outputs.filter(isShown);
  const others = outputs.filter((id) => !isShown(id));
  const error = unsupported("images", "must come from VAEDecode");
  const errors = others.map((id) => [id, nodeError(graph.prompt, id, error)] as const);
  const nodeErrors: NodeErrors = Object.fromEntries(errors);
  if (shown.length === 0) throw outputsRefused(nodeErrors);
  return { shown, nodeErrors };
}

// --- internal ---

/** The decoded image that an output shows, and what enlarges it; null for other images. */
function shownBy(graph: GraphReader, output: string): Enlargement | null {
  return imageEnlargement(graph, graph.source(output, "images"));
}

function enlargers({ scale, upscaler }: Enlargement): string {
  return JSON.stringify([scale, upscaler]);
}

/** Both prompts are encoded by the text encoders of the sampler's model, with the same LoRAs. */
function checkModel(graph: GraphReader, sampler: string, start: LatentStart) {
  const { prompt } = graph;
  const modelChain = chainOf(prompt, graph.node(sampler).inputs.model, ["model"]);
  const checkpoint = modelChain.at(-1)!;
  const isFull = (id: string) => graph.type(id) === "LoraLoader";
  const loras = modelChain.filter(isFull).join();
  const layers = new Set<string>();
  const controls = { positive: [] as string[], negative: [] as string[] };
  for (const name of ["positive", "negative"] as const) {
    const chain = conditioningChain(prompt, graph.node(sampler).inputs[name]);
    const id = encoderOf(graph, sampler, { name, chain, start });
    controls[name] = controlNodes(graph, chain);
    const clips = chainOf(prompt, graph.node(id).inputs.clip, ["clip"]);
    if (clips.at(-1) !== checkpoint || clips.filter(isFull).join() !== loras) {
      graph.refuse(id, "clip", "must come from the sampler's model, with the same LoRAs");
    }
    const layer = clips.find((each) => graph.type(each) === "CLIPSetLastLayer");
    layers.add(String(layer && graph.number(layer, "stop_at_clip_layer")));
    checkSdxl(graph, id, start);
  }
  if (layers.size > 1) {
    graph.refuse(sampler, "negative", "both prompts must have the same CLIPSetLastLayer");
  }
  checkControls(graph, sampler, controls);
  return { checkpoint, controls: controls.positive };
}

/** The node that encodes a prompt; those between are ones that a job has. */
function encoderOf(
  graph: GraphReader,
  sampler: string,
  { name, chain, start }: { name: string; chain: readonly string[]; start: LatentStart },
): string {
  const between = chain.slice(0, -1);
  for (const id of between) {
    if (graph.type(id) === "ConditioningZeroOut" && name === "positive") {
      graph.refuse(id, "conditioning", "the positive prompt cannot be zeros");
    }
  }
  const inpainting = between.filter((id) => graph.type(id) === "InpaintModelConditioning");
  const wanted = graph.type(start.id) === "InpaintModelConditioning" ? start.id : "";
  if (inpainting.join() !== wanted) {
    const node = "InpaintModelConditioning";
    graph.refuse(sampler, name, `both prompts and the latent must come from the same ${node}`);
  }
  return chain.at(-1)!;
}

/** Sizes that prompts of SDXL are told are those of the image. */
function checkSdxl(graph: GraphReader, id: string, start: LatentStart): void {
  const type = graph.type(id);
  if (!type.startsWith("CLIPTextEncodeSDXL")) return;
  const isEmpty = start.pixels === null;
  const told = (name: string) => graph.number(id, name);
  const width = isEmpty ? graph.number(start.id, "width") : told("width");
  const height = isEmpty ? graph.number(start.id, "height") : told("height");
  const ofBase = { target_width: width, target_height: height, crop_w: 0, crop_h: 0 };
  const wanted = { width, height, ...(type === "CLIPTextEncodeSDXL" && ofBase) };
  for (const [input, side] of Object.entries(wanted)) {
    if (told(input) === side) continue;
    graph.refuse(id, input, `must be that of the image, ${side}`);
  }
}

function checkVae(graph: GraphReader, id: string, vae: string): void {
  if (graph.source(id, "vae") === vae) return;
  graph.refuse(id, "vae", "must be the same wherever there is one");
}

/** `checkpoints` are those of the samplers, the first with the VAE that a job has by itself. */
function vaeOf(
  graph: GraphReader,
  decode: string,
  [own, ...others]: readonly (string | undefined)[],
): string | null {
  const vae = graph.source(decode, "vae");
  if (vae === own) return null;
  if (graph.type(vae) === "VAELoader" || others.includes(vae)) return vae;
  return graph.refuse(decode, "vae", "must be that of the sampler's model, or of VAELoader");
}
