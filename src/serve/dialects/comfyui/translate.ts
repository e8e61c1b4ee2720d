/**
 * A valid prompt of ComfyUI as a job. The reader of images' metadata takes the settings over; what
 * it would pass over is refused here, with the node and the input that are in the way.
 */
import { BasedXLError } from "../../../errors.ts";
import { recipeOfComfyUi } from "../../../metadata/from-comfyui.ts";
import { sideUnit } from "../../../metadata/recipe.ts";
import { settings as table } from "../../../settings/table.ts";
import type { InputImages, JobSpec } from "../../jobs/types.ts";
import { modelNamed, nameIn } from "../listed-names.ts";
import { RequestedRecipe } from "../requested-recipe.ts";
import { controlsOf } from "./controls.ts";
import { type Enlargement, enlargementSettings, nodeOf } from "./enlargement.ts";
import { comfyError, type NodeErrors } from "./errors.ts";
import { type Link, orderOf, type Prompt } from "./graph.ts";
import { GraphReader, refusedAt } from "./graph-reader.ts";
import type { NodeLists } from "./input-types.ts";
import type { ComfyData } from "./job-data.ts";
import { type LatentStart, maskSettings, pngOf, startImages } from "./latent-start.ts";
import { NodePixels, type PixelSources } from "./pixels.ts";
import { checkPlainGraph, splitOutputs } from "./plain-graph.ts";
import { checkSameTexts, scoresOf } from "./refined.ts";
import { stepsOf } from "./sampler-steps.ts";
import { secondPassSettings } from "./second-pass.ts";

interface Translation {
  request: JobSpec["request"];
  model: string;
  /** Absent for the model's own. */
  vae?: string;
  /** Absent where one model takes all steps. */
  refiner?: string;
  /** null where it starts from noise alone. */
  images: InputImages | null;
  /** Of outputs that show nothing of it. */
  nodeErrors: NodeErrors;
  work: Omit<ComfyData, "promptId" | "number" | "extraData">;
}

/** `sources` give images that nodes name, and enlarge them. Rejects with `PromptRefused`. */
export async function translatePrompt(
  whole: Prompt,
  allOutputs: readonly string[],
  lists: NodeLists,
  sources: Pick<PixelSources, "read" | "upscaling">,
): Promise<Translation> {
  const { shown: outputs, nodeErrors } = splitOutputs(new GraphReader(whole), allOutputs);
  const order = orderOf(whole, outputs);
  const prompt: Prompt = Object.fromEntries(order.map((id) => [id, whole[id]!]));
  const graph = new GraphReader(prompt);
  const shape = checkPlainGraph(graph, outputs);
  const { decode, sampler, first, start, second, refined, enlarged, controls } = shape;
  const context = { empty: start.id, lists };
  const recipe = readRecipe(prompt, first);
  if (refined !== null) checkSameTexts(graph, sampler, textsOf(recipe));
  const { noiseBatch = 1, ...settings } = recipe.settings;
  const loras = recipe.loras.map(({ name, scale, textScale }) => {
    return { file: nameIn(lists.loras, name) ?? name, scale, textScale };
  });
  const steered = controlsOf(graph, controls, lists);
  const request = {
    // A text that is empty is a prompt too.
    prompt: "",
    ...settings,
    ...(refined === null
      ? stepsOf(graph, first, start)
      : { denoisingEnd: refined.steps / refined.stepCount }),
    ...(second && secondPassSettings(graph, sampler, second, context)),
    ...(enlarged && enlargedSettings(graph, enlarged, context)),
    ...maskSettings(start),
    ...(refined && scoresOf(graph, sampler)),
    imageCount: countOf(graph, start, noiseBatch),
    ...steered.settings,
    ...(loras.length > 0 && { loras }),
  };
  const pixelsMax = lists.limits.megapixels * 1e6;
  const pixels = new NodePixels(graph, { ...sources, lists, pixelsMax });
  return {
    request,
    model: modelNamed(lists, recipe.model?.name ?? "")!.id,
    ...namesOf(graph, shape, lists),
    images: await imagesOf(start, steered.images, pixels),
    nodeErrors,
    work: {
      ...{ prompt, outputs, order, sampler, decode, ...(first !== sampler && { first }) },
      ...(refined && { firstSteps: refined.steps }),
    },
  };
}

// --- internal ---

/** Nothing is made anew behind the last sampler. */
function enlargedSettings(
  graph: GraphReader,
  enlarged: Enlargement,
  context: { empty: string; lists: NodeLists },
) {
  const settings = enlargementSettings(graph, enlarged, context);
  for (const side of ["width", "height"]) {
    const larger = graph.number(context.empty, side) * settings.hires;
    if (Math.abs(larger / sideUnit - Math.round(larger / sideUnit)) < 1e-6) continue;
    const why = `the enlarged ${side} ${larger} must be a multiple of ${sideUnit}`;
    graph.refuse(nodeOf(enlarged)!, "image", why);
  }
  return { ...settings, hiresStrength: 0 };
}

/** The VAE, by its name or that of its model, and the refiner. */
function namesOf(
  graph: GraphReader,
  { vae, refined }: ReturnType<typeof checkPlainGraph>,
  lists: NodeLists,
): Pick<Translation, "vae" | "refiner"> {
  const checkpoint = (id: string) => modelNamed(lists, graph.text(id, "ckpt_name"))!.id;
  const vaeName = (id: string) => {
    const isLoader = graph.type(id) === "VAELoader";
    return isLoader ? nameIn(lists.vaes, graph.text(id, "vae_name"))! : checkpoint(id);
  };
  return {
    ...(vae !== null && { vae: vaeName(vae) }),
    ...(refined !== null && { refiner: checkpoint(refined.loader) }),
  };
}

/** What the first text encoder reads; null for zeros. */
function textsOf({ settings }: RequestedRecipe) {
  const { prompt = "", negativePrompt = "", emptyNegative } = settings;
  return { positive: prompt, negative: emptyNegative === "zeros" ? null : negativePrompt };
}

function readRecipe(prompt: Prompt, sampler: string) {
  const recipe = new RequestedRecipe("ComfyUI", "comfyui");
  try {
    recipeOfComfyUi(prompt, recipe);
    return recipe;
  } catch (error) {
    if (!(error instanceof BasedXLError)) throw error;
    const type = "custom_validation_failed";
    const found = comfyError(type, "Custom validation failed for node", error.message);
    throw refusedAt(prompt, sampler, found);
  }
}

/** null for none. */
async function imagesOf(
  start: LatentStart,
  hints: readonly Link[],
  pixels: NodePixels,
): Promise<InputImages | null> {
  const own = await startImages(start, pixels);
  if (hints.length === 0) return own;
  const controlImages: Uint8Array[] = [];
  for (const link of hints) controlImages.push(await pngOf(await pixels.at(link)));
  return { image: null, mask: null, ...own, controlImages };
}

function countOf(graph: GraphReader, { id, repeats }: LatentStart, batch: number): number {
  const { max } = table.imageCount;
  const count = batch * repeats;
  if (count <= max) return count;
  return graph.refuse(id, "samples", `a prompt has ${max} images at most, not ${count}`);
}
