/**
 * Which steps a sampler takes, as `num_inference_steps` and `strength` say it with `--compat
 * comfyui`: so many steps, the last of more.
 * Source: ComfyUI, comfy/samplers.py (KSampler.set_steps, KSampler.sample).
 */
import type { RequestSettings } from "../../../settings/table.ts";
import type { GraphReader } from "./graph-reader.ts";
import type { LatentStart } from "./latent-start.ts";

type Steps = Pick<RequestSettings, "stepCount" | "strength">;

/** Nothing for all steps from noise alone. Throws `PromptRefused`. */
export function stepsOf(graph: GraphReader, sampler: string, start: LatentStart): Steps {
  const isAdvanced = graph.type(sampler) === "KSamplerAdvanced";
  return isAdvanced ? rangeOf(graph, sampler, start) : shareOf(graph, sampler, start);
}

// --- internal ---

function shareOf(graph: GraphReader, sampler: string, { pixels }: LatentStart): Steps {
  const strength = graph.number(sampler, "denoise");
  if (pixels === null) {
    if (strength === 1) return {};
    graph.refuse(sampler, "denoise", "must be 1 for an empty latent");
  }
  if (strength > 0) return { strength };
  return graph.refuse(sampler, "denoise", "must be above 0: at 0 the image stays as it is");
}

function rangeOf(graph: GraphReader, sampler: string, { pixels }: LatentStart): Steps {
  const steps = graph.number(sampler, "steps");
  const first = graph.number(sampler, "start_at_step");
  if (graph.text(sampler, "add_noise") !== "enable") {
    graph.refuse(sampler, "add_noise", "must be enable");
  }
  if (graph.number(sampler, "end_at_step") < steps) {
    graph.refuse(sampler, "end_at_step", "must be the number of steps or more");
  }
  if (pixels === null) {
    if (first === 0) return {};
    graph.refuse(sampler, "start_at_step", "must be 0 for an empty latent");
  }
  if (first >= steps) graph.refuse(sampler, "start_at_step", "must be below the number of steps");
  return { stepCount: steps - first, strength: strengthOf(steps - first, steps) };
}

/** Of which `taken` steps are the last of `all`. */
function strengthOf(taken: number, all: number): number {
  const strength = taken / all;
  // The quotient may be a bit above the fraction, and then it is of one step fewer.
  return Math.trunc(taken / strength) === all ? strength : taken / (all + 0.5);
}
