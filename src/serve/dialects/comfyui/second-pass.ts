/**
 * A second sampler of a larger latent as the settings of a second pass: the latent enlarged between
 * two samplers, or the decoded image, which is encoded again. Both samplers are the same otherwise.
 */
import type { RequestSettings } from "../../../settings/table.ts";
import {
  type Enlargement,
  enlargementSettings,
  imageEnlargement,
  latentEnlargement,
  nodeOf,
} from "./enlargement.ts";
import type { GraphReader } from "./graph-reader.ts";
import type { NodeLists } from "./input-types.ts";

export interface SecondPass {
  /** The sampler of the first. */
  first: string;
  enlargement: Enlargement;
  /** Nodes that decode and encode between the samplers; none where the latent is enlarged. */
  coders: string[];
}

/** null where the latent of `sampler` comes from no other one. Throws `PromptRefused`. */
export function secondPass(graph: GraphReader, sampler: string): SecondPass | null {
  const source = graph.source(sampler, "latent_image");
  const ofLatent = latentEnlargement(graph, source);
  if (ofLatent !== null) {
    const { from: first } = ofLatent;
    if (!isSampler(graph, first)) return null;
    return checked(graph, sampler, { first, enlargement: ofLatent, coders: [] });
  }
  if (graph.type(source) !== "VAEEncode") return null;
  const enlargement = imageEnlargement(graph, graph.source(source, "pixels"));
  if (enlargement === null || nodeOf(enlargement) === null) return null;
  const { from: decode } = enlargement;
  const first = graph.source(decode, "samples");
  return checked(graph, sampler, { first, enlargement, coders: [decode, source] });
}

type HiresSettings = Pick<
  RequestSettings,
  "hires" | "hiresUpscaler" | "hiresStrength" | "hiresSteps"
>;

/** `empty` is the node of the first pass's latent. */
export function secondPassSettings(
  graph: GraphReader,
  sampler: string,
  { enlargement }: SecondPass,
  context: { empty: string; lists: NodeLists },
): HiresSettings {
  const larger = enlargementSettings(graph, enlargement, context);
  const hiresStrength = graph.number(sampler, "denoise");
  if (hiresStrength === 0) graph.refuse(sampler, "denoise", "must be above 0");
  return { ...larger, hiresStrength, hiresSteps: graph.number(sampler, "steps") };
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
  graph.checkSame(sampler, first, shared);
  for (const input of sharedLinks) {
    const [own, other] = [sampler, first].map((id) => graph.link(id, input).join());
    if (own !== other) graph.refuse(sampler, input, "must be that of the first sampler");
  }
  return pass;
}
