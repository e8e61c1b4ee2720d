/**
 * Two samplers that share their steps, each with a model of its own: a base model from an empty
 * latent, and a refiner that goes on with what noise is left.
 * Source: ComfyUI, nodes.py (KSamplerAdvanced), comfy/model_base.py (SDXLRefiner); the workflow of
 * base model and refiner among its examples.
 */
import { type RequestSettings, settings as table } from "../../../settings/table.ts";
import { conditioningChain } from "./graph.ts";
import type { GraphReader } from "./graph-reader.ts";

export interface Refined {
  /** The sampler of the base model. */
  base: string;
  /** The node that loads the refiner. */
  loader: string;
  /** Steps of the base model, and of both. */
  steps: number;
  stepCount: number;
}

/** null where the latent of `sampler` comes from no other one. Throws `PromptRefused`. */
export function refinedOf(graph: GraphReader, sampler: string): Refined | null {
  const base = graph.source(sampler, "latent_image");
  if (!isAdvanced(graph, sampler) || !isAdvanced(graph, base)) return null;
  graph.checkSame(sampler, base, shared);
  if (samplesNoise.test(graph.text(base, "sampler_name"))) {
    graph.refuse(base, "sampler_name", "must be one without noise of its own between two models");
  }
  const stepCount = graph.number(base, "steps");
  checkLevels(graph, base, sampler, stepCount);
  const loader = loaderOf(graph, base, sampler);
  for (const name of prompts) checkPrompt(graph, sampler, name, loader);
  return { base, loader, steps: graph.number(base, "end_at_step"), stepCount };
}

/** `texts` are those that the base model's first encoder reads; null for zeros. */
export function checkSameTexts(
  graph: GraphReader,
  sampler: string,
  texts: Readonly<Record<PromptName, string | null>>,
): void {
  for (const name of prompts) {
    const chain = chainTo(graph, sampler, name);
    const isZero = chain.some((id) => graph.type(id) === "ConditioningZeroOut");
    const text = isZero ? null : graph.text(chain.at(-1)!, "text");
    if (text === texts[name] || (text?.trim() === "" && texts[name] === "")) continue;
    graph.refuse(chain.at(-1)!, "text", "must be the prompt of the first sampler");
  }
}

/** The aesthetic scores that its prompts name. */
export function scoresOf(
  graph: GraphReader,
  sampler: string,
): Pick<RequestSettings, "aestheticScore" | "negativeAestheticScore"> {
  const [positive, negative] = refinerEncoders(graph, sampler).map((id) => {
    return graph.type(id) === "CLIPTextEncode" ? undefined : graph.number(id, "ascore");
  });
  return {
    ...(positive !== undefined && { aestheticScore: positive }),
    ...(negative !== undefined && { negativeAestheticScore: negative }),
  };
}

/** The nodes that encode the refiner's prompts. */
export function refinerEncoders(graph: GraphReader, sampler: string): string[] {
  return prompts.map((name) => chainTo(graph, sampler, name).at(-1)!);
}

// --- internal ---

const prompts = ["positive", "negative"] as const;
type PromptName = (typeof prompts)[number];

function chainTo(graph: GraphReader, sampler: string, name: PromptName): string[] {
  return conditioningChain(graph.prompt, graph.node(sampler).inputs[name]);
}

const shared = ["steps", "cfg", "sampler_name", "scheduler"] as const;

/** Each of ComfyUI's samplers begins its noise anew; a job's goes on. */
const samplesNoise = /ancestral|sde|^(ddpm|lcm|seeds_)/;

function isAdvanced(graph: GraphReader, id: string): boolean {
  return graph.type(id) === "KSamplerAdvanced";
}

/** The first leaves noise, which the second takes up. */
function checkLevels(graph: GraphReader, base: string, sampler: string, stepCount: number): void {
  const wanted = [
    [base, "add_noise", "enable"],
    [base, "return_with_leftover_noise", "enable"],
    [sampler, "add_noise", "disable"],
  ] as const;
  for (const [id, input, value] of wanted) {
    if (graph.text(id, input) !== value) {
      graph.refuse(id, input, `must be ${value} where two samplers share their steps`);
    }
  }
  const end = graph.number(base, "end_at_step");
  if (graph.number(base, "start_at_step") !== 0) {
    graph.refuse(base, "start_at_step", "must be 0 for an empty latent");
  }
  if (end < 1 || end >= stepCount) {
    graph.refuse(base, "end_at_step", `must be from 1 to ${stepCount - 1} for a second sampler`);
  }
  if (graph.number(sampler, "start_at_step") !== end) {
    graph.refuse(sampler, "start_at_step", `must be where the first sampler ends, ${end}`);
  }
  if (graph.number(sampler, "end_at_step") < stepCount) {
    graph.refuse(sampler, "end_at_step", "must be the number of steps or more");
  }
}

/** LoRAs are the base model's alone. */
function loaderOf(graph: GraphReader, base: string, sampler: string): string {
  const loader = graph.source(sampler, "model");
  if (graph.type(loader) !== "CheckpointLoaderSimple") {
    graph.refuse(sampler, "model", "must come from CheckpointLoaderSimple: a refiner has no LoRAs");
  }
  if (graph.source(base, "model") === loader) {
    graph.refuse(sampler, "model", "must be another model than the first sampler's");
  }
  return loader;
}

function checkPrompt(graph: GraphReader, sampler: string, name: PromptName, loader: string): void {
  const chain = chainTo(graph, sampler, name);
  const encoder = chain.at(-1)!;
  const between = chain.slice(0, -1).map((id) => graph.type(id));
  const isPlain = between.every((type) => type === "ConditioningZeroOut" && name === "negative");
  if (!isPlain || !/^CLIPTextEncode(SDXLRefiner)?$/.test(graph.type(encoder))) {
    const types = "CLIPTextEncode or CLIPTextEncodeSDXLRefiner";
    graph.refuse(sampler, name, `of a refiner must come from ${types} alone`);
  }
  if (graph.source(encoder, "clip") !== loader) {
    graph.refuse(encoder, "clip", "must come from the sampler's model");
  }
  const { max } = table.aestheticScore;
  if (graph.type(encoder) === "CLIPTextEncode" || graph.number(encoder, "ascore") <= max) return;
  graph.refuse(encoder, "ascore", `must be ${max} at most`);
}
