/**
 * A valid prompt of ComfyUI as a job. The reader of images' metadata takes the settings over; what
 * it would pass over is refused here, with the node and the input that are in the way.
 */
import { BasedXLError } from "../../../errors.ts";
import { numberOf } from "../../../metadata/foreign-json.ts";
import { recipeOfComfyUi } from "../../../metadata/from-comfyui.ts";
import type { Capabilities } from "../../capabilities.ts";
import type { JobSpec } from "../../jobs/types.ts";
import { loraNamed, modelNamed } from "../listed-names.ts";
import { RequestedRecipe } from "../requested-recipe.ts";
import { type ComfyError, comfyError, type PromptRefused, unsupported } from "./errors.ts";
import { chainOf, type GraphNode, linkOf, orderOf, type Prompt, plainValue } from "./graph.ts";
import type { ComfyData } from "./job-data.ts";
import { outputsRefused } from "./validate.ts";

interface Translation {
  request: JobSpec["request"];
  model: string;
  work: Pick<ComfyData, "prompt" | "outputs" | "order" | "sampler" | "decode">;
}

/** Throws `PromptRefused`. */
export function translatePrompt(
  whole: Prompt,
  outputs: readonly string[],
  lists: Capabilities,
): Translation {
  const order = orderOf(whole, outputs);
  const prompt: Prompt = Object.fromEntries(order.map((id) => [id, whole[id]!]));
  const plain = new PlainGraph(prompt, outputs);
  const { decode, sampler } = plain.check();
  const recipe = readRecipe(prompt, sampler);
  const { noiseBatch: imageCount, ...settings } = recipe.settings;
  const { model } = recipe;
  const loras = recipe.loras.map(({ name, scale, textScale }) => {
    return { file: loraNamed(lists, name) ?? name, scale, textScale };
  });
  const request = {
    // A text that is empty is a prompt too.
    prompt: "",
    ...settings,
    ...(imageCount !== undefined && { imageCount }),
    ...(loras.length > 0 && { loras }),
  };
  return {
    request,
    model: modelNamed(lists, model?.name ?? "")!.id,
    work: { prompt, outputs: [...outputs], order, sampler, decode },
  };
}

// --- internal ---

function readRecipe(prompt: Prompt, sampler: string) {
  const recipe = new RequestedRecipe("ComfyUI", "comfyui");
  try {
    recipeOfComfyUi(prompt, recipe);
    return recipe;
  } catch (error) {
    if (!(error instanceof BasedXLError)) throw error;
    const type = "custom_validation_failed";
    const found = comfyError(type, "Custom validation failed for node", error.message);
    throw refused(prompt, sampler, found);
  }
}

function refused(prompt: Prompt, id: string, error: ComfyError): PromptRefused {
  const { class_type } = prompt[id]!;
  return outputsRefused({ [id]: { errors: [error], dependent_outputs: [], class_type } });
}

/** The shape that a job has: one sampler from an empty latent, decoded once. */
class PlainGraph {
  constructor(
    private readonly prompt: Prompt,
    private readonly outputs: readonly string[],
  ) {}

  check(): { decode: string; sampler: string } {
    const decodes = this.outputs.map((id) => this.source(id, "images"));
    const samplers = decodes.map((id) => this.source(id, "samples"));
    const [decode, sampler] = [decodes[0]!, samplers[0]!];
    const other = samplers.findIndex((id) => id !== sampler);
    if (other >= 0) {
      this.refuse(this.outputs[other]!, "images", "one prompt has one sampler: send one each");
    }
    const { class_type, inputs } = this.node(sampler);
    if (class_type === "KSampler") this.checkWhole(sampler, inputs);
    else this.checkSteps(sampler, inputs);
    const checkpoint = this.checkModel(sampler, inputs);
    for (const id of decodes) this.checkVae(id, checkpoint);
    this.checkLatent(sampler);
    return { decode, sampler };
  }

  private node(id: string): GraphNode {
    return this.prompt[id]!;
  }

  /** The node that an input is linked to: the types of links leave no other. */
  private source(id: string, input: string): string {
    return linkOf(this.node(id).inputs[input])![0];
  }

  private number(value: unknown): number {
    return numberOf(plainValue(this.prompt, value)) ?? Number.NaN;
  }

  private refuse(id: string, input: string, why: string): never {
    throw refused(this.prompt, id, unsupported(input, why));
  }

  private checkWhole(id: string, { denoise }: GraphNode["inputs"]): void {
    if (this.number(denoise) === 1) return;
    this.refuse(id, "denoise", "images to start from are not there yet: it must be 1");
  }

  private checkSteps(id: string, { steps, ...inputs }: GraphNode["inputs"]): void {
    if (inputs.add_noise !== "enable") this.refuse(id, "add_noise", "must be enable");
    if (this.number(inputs.start_at_step) > 0) this.refuse(id, "start_at_step", "must be 0");
    if (this.number(inputs.end_at_step) < this.number(steps)) {
      this.refuse(id, "end_at_step", "must be the number of steps or more");
    }
  }

  /** Both prompts are encoded by the text encoders of the sampler's model, with the same LoRAs. */
  private checkModel(sampler: string, inputs: GraphNode["inputs"]): string {
    const modelChain = chainOf(this.prompt, inputs.model, ["model"]);
    const checkpoint = modelChain.at(-1)!;
    const isFull = (id: string) => this.node(id).class_type === "LoraLoader";
    const loras = modelChain.filter(isFull).join();
    const layers = new Set<string>();
    for (const name of ["positive", "negative"]) {
      const encode = chainOf(this.prompt, inputs[name], ["conditioning"]);
      const id = encode.at(-1)!;
      if (name === "positive" && encode.length > 1) {
        this.refuse(encode[0]!, "conditioning", "the positive prompt cannot be zeros");
      }
      const clips = chainOf(this.prompt, this.node(id).inputs.clip, ["clip"]);
      if (clips.at(-1) !== checkpoint || clips.filter(isFull).join() !== loras) {
        this.refuse(id, "clip", "must come from the sampler's model, with the same LoRAs");
      }
      const layer = clips.find((each) => this.node(each).class_type === "CLIPSetLastLayer");
      layers.add(String(layer && this.number(this.node(layer).inputs.stop_at_clip_layer)));
      this.checkSdxl(id, sampler);
    }
    if (layers.size > 1) {
      this.refuse(sampler, "negative", "both prompts must have the same CLIPSetLastLayer");
    }
    return checkpoint;
  }

  /** Sizes that prompts of SDXL are told are those of the image. */
  private checkSdxl(id: string, sampler: string): void {
    const { class_type, inputs } = this.node(id);
    if (class_type !== "CLIPTextEncodeSDXL") return;
    const latent = this.node(this.source(sampler, "latent_image")).inputs;
    const sizes = { width: latent.width, height: latent.height };
    const wanted = { ...sizes, target_width: sizes.width, target_height: sizes.height };
    for (const [input, side] of Object.entries({ ...wanted, crop_w: 0, crop_h: 0 })) {
      if (this.number(inputs[input]) === this.number(side)) continue;
      this.refuse(id, input, `must be that of the image, ${this.number(side)}`);
    }
  }

  private checkVae(decode: string, checkpoint: string): void {
    if (this.source(decode, "vae") === checkpoint) return;
    this.refuse(decode, "vae", "must be that of the sampler's model");
  }

  private checkLatent(sampler: string): void {
    const id = this.source(sampler, "latent_image");
    if (this.node(id).class_type === "EmptyLatentImage") return;
    this.refuse(sampler, "latent_image", "images to start from are not there yet");
  }
}
