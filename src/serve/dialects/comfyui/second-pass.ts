/**
 * A second sampler of a larger latent as the settings of a second pass: the latent enlarged between
 * two samplers, or the decoded image, which is encoded again. Both samplers are the same otherwise.
 * Source: ComfyUI, nodes.py (LatentUpscale, LatentUpscaleBy, ImageScale, ImageScaleBy).
 */
import { type RequestSettings, settings as table } from "../../../settings/table.ts";
import { linkOf } from "./graph.ts";
import type { GraphReader } from "./graph-reader.ts";

export interface SecondPass {
  /** The sampler of the first. */
  first: string;
  /** The node that enlarges. */
  upscale: string;
  /** Nodes that decode and encode between the samplers; none where the latent is enlarged. */
  coders: string[];
}

/** null where the latent of `sampler` comes from no other one. Throws `PromptRefused`. */
export function secondPass(graph: GraphReader, sampler: string): SecondPass | null {
  const upscale = graph.source(sampler, "latent_image");
  if (/^LatentUpscale(By)?$/.test(graph.type(upscale))) {
    const first = graph.source(upscale, "samples");
    return isSampler(graph, first) ? checked(graph, sampler, { first, upscale, coders: [] }) : null;
  }
  if (graph.type(upscale) !== "VAEEncode") return null;
  const encode = upscale;
  const scale = graph.source(encode, "pixels");
  if (!/^ImageScale(By)?$/.test(graph.type(scale))) return null;
  const decode = graph.source(scale, "image");
  if (graph.type(decode) !== "VAEDecode") return null;
  const first = graph.source(decode, "samples");
  return checked(graph, sampler, { first, upscale: scale, coders: [decode, encode] });
}

type HiresSettings = Pick<
  RequestSettings,
  "hires" | "hiresUpscaler" | "hiresStrength" | "hiresSteps"
>;

/** `empty` is the node of the first pass's latent. */
export function secondPassSettings(
  graph: GraphReader,
  sampler: string,
  { upscale }: SecondPass,
  empty: string,
): HiresSettings {
  const hires = factorOf(graph, upscale, empty);
  const { min, max } = table.hires;
  if (!(hires >= min && hires <= max)) {
    graph.refuse(upscale, "scale_by", `must be from ${min} to ${max}, not ${hires}`);
  }
  const hiresStrength = graph.number(sampler, "denoise");
  if (hiresStrength === 0) graph.refuse(sampler, "denoise", "must be above 0");
  const hiresUpscaler = upscalerOf(graph, upscale);
  return { hires, hiresUpscaler, hiresStrength, hiresSteps: graph.number(sampler, "steps") };
}

// --- internal ---

function isSampler(graph: GraphReader, id: string): boolean {
  return /^KSampler(Advanced)?$/.test(graph.type(id));
}

/** What both samplers have; the second one's steps and `denoise` are its own. */
const shared = ["seed", "cfg", "sampler_name", "scheduler"] as const;
const sharedLinks = ["model", "positive", "negative"] as const;

function checked(graph: GraphReader, sampler: string, pass: SecondPass): SecondPass {
  const { first } = pass;
  for (const id of [first, sampler]) {
    if (graph.type(id) === "KSampler") continue;
    graph.refuse(sampler, "latent_image", "two passes are of two nodes KSampler");
  }
  for (const input of shared) {
    if (graph.text(sampler, input) === graph.text(first, input)) continue;
    graph.refuse(sampler, input, `must be that of the first sampler, ${graph.text(first, input)}`);
  }
  for (const input of sharedLinks) {
    const [own, other] = [sampler, first].map((id) => linkOf(graph.node(id).inputs[input])!.join());
    if (own !== other) graph.refuse(sampler, input, "must be that of the first sampler");
  }
  return pass;
}

function factorOf(graph: GraphReader, upscale: string, empty: string): number {
  if (graph.type(upscale).endsWith("By")) return graph.number(upscale, "scale_by");
  const by = (side: string) => graph.number(upscale, side) / graph.number(empty, side);
  const [across, down] = [by("width"), by("height")];
  // 0 keeps the shape.
  if (across === 0 || down === 0) return Math.max(across, down);
  if (Math.abs(across - down) > 1e-3) {
    graph.refuse(upscale, "width", "the larger image must have the shape of the first");
  }
  return across;
}

/** Methods by kind of node, and this program's names of them. */
const upscalers: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  LatentUpscale: {
    ...{ bilinear: "latent", bicubic: "latent-bicubic" },
    "nearest-exact": "latent-nearest-exact",
  },
  ImageScale: { lanczos: "lanczos" },
};

function upscalerOf(graph: GraphReader, upscale: string): string {
  const known = upscalers[graph.type(upscale).replace(/By$/, "")] ?? {};
  const method = graph.text(upscale, "upscale_method");
  const found = known[method];
  if (found !== undefined) return found;
  const names = Object.keys(known).join(", ");
  return graph.refuse(upscale, "upscale_method", `must be ${names} between two samplers`);
}
