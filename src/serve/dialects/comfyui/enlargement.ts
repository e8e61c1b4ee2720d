/**
 * Nodes that enlarge what is sampled, as settings of a second pass: a latent between two samplers,
 * or a decoded image, by a filter or by an upscaler and a filter behind it.
 * Source: ComfyUI, nodes.py (LatentUpscale, LatentUpscaleBy, ImageScale, ImageScaleBy) and
 * comfy_extras/nodes_upscale_model.py.
 */
import { type RequestSettings, settings as table } from "../../../settings/table.ts";
import type { Capabilities } from "../../capabilities.ts";
import { nameIn } from "../listed-names.ts";
import type { GraphReader } from "./graph-reader.ts";

export interface Enlargement {
  /** The node that has a size or a factor; null for an upscaler's own. */
  scale: string | null;
  /** The node of an upscaler; null for none. */
  upscaler: string | null;
  /** The node whose latent or image is enlarged. */
  from: string;
}

type Lists = Pick<Capabilities, "upscalers">;

/** Of a latent; null where the node enlarges none. */
export function latentEnlargement(graph: GraphReader, id: string): Enlargement | null {
  if (!/^LatentUpscale(By)?$/.test(graph.type(id))) return null;
  return { scale: id, upscaler: null, from: graph.source(id, "samples") };
}

/** Of a decoded image, perhaps by nothing; null for other images. */
export function imageEnlargement(graph: GraphReader, id: string): Enlargement | null {
  const scale = /^ImageScale(By)?$/.test(graph.type(id)) ? id : null;
  const behind = scale === null ? id : graph.source(scale, "image");
  const upscaler = graph.type(behind) === "ImageUpscaleWithModel" ? behind : null;
  const from = upscaler === null ? behind : graph.source(upscaler, "image");
  return graph.type(from) === "VAEDecode" ? { scale, upscaler, from } : null;
}

/** The node that is in the way where something is wrong with it. */
export function nodeOf({ scale, upscaler }: Enlargement): string | null {
  return scale ?? upscaler;
}

/** `empty` is the node of the first latent. Throws `PromptRefused`. */
export function enlargementSettings(
  graph: GraphReader,
  enlargement: Enlargement,
  { empty, lists }: { empty: string; lists: Lists },
): Required<Pick<RequestSettings, "hires" | "hiresUpscaler">> {
  const { scale, upscaler } = enlargement;
  const model = upscaler === null ? null : upscalerOf(graph, upscaler, lists);
  const hires = factorOf(graph, scale, { empty, own: model?.scale ?? 1 });
  const { min, max } = table.hires;
  const most = Math.min(max, model?.scale ?? max);
  if (!(hires >= min && hires <= most)) {
    const why = `must be from ${min} to ${most} times as large, not ${hires}`;
    graph.refuse(nodeOf(enlargement)!, scale === null ? "image" : "scale_by", why);
  }
  const method = scale && methodOf(graph, scale);
  return { hires, hiresUpscaler: model?.name ?? method! };
}

/** Of the server's list. */
export function upscalerOf(graph: GraphReader, id: string, { upscalers }: Lists) {
  const name = nameIn(upscalers, graph.text(graph.source(id, "upscale_model"), "model_name"));
  return upscalers.find((each) => each.name === name)!;
}

// --- internal ---

/** Both sides grow alike. `own` is the factor before `scale`. */
function factorOf(
  graph: GraphReader,
  scale: string | null,
  { empty, own }: { empty: string; own: number },
): number {
  if (scale === null) return own;
  if (graph.type(scale).endsWith("By")) return own * graph.number(scale, "scale_by");
  const by = (side: string) => graph.number(scale, side) / graph.number(empty, side);
  const [across, down] = [by("width"), by("height")];
  // 0 keeps the shape.
  if (across === 0 || down === 0) return Math.max(across, down);
  if (Math.abs(across - down) > 1e-3) {
    graph.refuse(scale, "width", "the larger image must have the shape of the first");
  }
  return across;
}

/** Methods by kind of node, and this program's names of them. */
const methods: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  LatentUpscale: {
    ...{ bilinear: "latent", bicubic: "latent-bicubic" },
    "nearest-exact": "latent-nearest-exact",
  },
  ImageScale: { lanczos: "lanczos" },
};

function methodOf(graph: GraphReader, scale: string): string {
  const known = methods[graph.type(scale).replace(/By$/, "")] ?? {};
  const found = known[graph.text(scale, "upscale_method")];
  if (found !== undefined) return found;
  const names = Object.keys(known).join(", ");
  return graph.refuse(scale, "upscale_method", `must be ${names} behind a sampler`);
}
