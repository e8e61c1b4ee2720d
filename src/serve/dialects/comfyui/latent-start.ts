/**
 * What a sampler starts from, read back from its latent: nothing, or an image with or without a
 * mask. Source: ComfyUI, nodes.py (VAEEncode, VAEEncodeForInpaint, InpaintModelConditioning,
 * SetLatentNoiseMask, RepeatLatentBatch).
 */
import type { RawImage } from "../../../image/read.ts";
import { encodeFile } from "../../../image.ts";
import type { RequestSettings } from "../../../settings/table.ts";
import type { InputImages } from "../../jobs/types.ts";
import { pngOfGrey } from "../image-bytes.ts";
import { resampled } from "../resample.ts";
import type { Link } from "./graph.ts";
import type { GraphReader } from "./graph-reader.ts";
import type { NodePixels } from "./pixels.ts";

export interface LatentStart {
  /** The node that makes the first latent. */
  id: string;
  /** null for an empty latent. */
  pixels: Link | null;
  mask: { link: Link; growBy: number; blanks: boolean } | null;
  /** How often the latent is there. */
  repeats: number;
}

/** Throws `PromptRefused` for what a job cannot start from. */
export function latentStart(graph: GraphReader, sampler: string): LatentStart {
  let id = graph.source(sampler, "latent_image");
  let repeats = 1;
  let mask: LatentStart["mask"] = null;
  for (;;) {
    const type = graph.type(id);
    if (type === "RepeatLatentBatch") repeats *= graph.number(id, "amount");
    else if (type === "SetLatentNoiseMask") {
      mask ??= { link: graph.link(id, "mask"), growBy: 0, blanks: false };
    } else break;
    id = graph.source(id, "samples");
  }
  if (graph.type(id) === "EmptyLatentImage") {
    if (mask !== null) graph.refuse(sampler, "latent_image", "an empty latent has no mask");
    return { id, pixels: null, mask, repeats };
  }
  if (!encoders.has(graph.type(id))) {
    graph.refuse(sampler, "latent_image", "what was sampled cannot be sampled again");
  }
  const own = ownMask(graph, id);
  if (own !== null && mask !== null) {
    graph.refuse(id, "mask", "the latent has a second mask behind it: one is possible");
  }
  return { id, pixels: graph.link(id, "pixels"), mask: own ?? mask, repeats };
}

/** The files of a job that starts from an image. */
export async function startImages(
  { pixels, mask }: LatentStart,
  nodes: NodePixels,
): Promise<InputImages | null> {
  if (pixels === null) return null;
  const image = await nodes.at(pixels);
  if (mask === null) return { image: await pngOf(image), mask: null };
  const fitted = await resampled(await nodes.at(mask.link), image, "bilinear");
  return { image: await pngOf(image), mask: await pngOfGrey(fitted) };
}

/** What the mask does beside choosing what is sampled. */
export function maskSettings({
  mask,
}: LatentStart): Pick<RequestSettings, "maskContent" | "maskGrow"> {
  if (mask === null || !mask.blanks) return {};
  return { maskContent: "grey", ...(mask.growBy > 0 && { maskGrow: mask.growBy }) };
}

export async function pngOf(image: RawImage): Promise<Uint8Array> {
  return (await encodeFile("png", image)).bytes;
}

// --- internal ---

const encoders = new Set(["VAEEncode", "VAEEncodeForInpaint", "InpaintModelConditioning"]);

function ownMask(graph: GraphReader, id: string): LatentStart["mask"] {
  const type = graph.type(id);
  if (type === "VAEEncode") return null;
  const link = graph.link(id, "mask");
  if (type === "VAEEncodeForInpaint") {
    return { link, growBy: graph.number(id, "grow_mask_by"), blanks: true };
  }
  if (graph.value(id, "noise_mask") !== true) {
    graph.refuse(id, "noise_mask", "must be true: what is outside the mask stays");
  }
  return { link, growBy: 0, blanks: false };
}
