/**
 * The tokens of each image of a request: its prompts in chunks, with weights and embeddings.
 */
import type { EmbeddingTable } from "../embeddings.ts";
import { BasedXLError } from "../errors.ts";
import type { Model } from "../models/model.ts";
import type { TokenPair } from "../native/handle.ts";
import { piecesOf } from "../prompt/pieces.ts";
import type { PromptSyntax } from "../settings/names.ts";
import type { Naming } from "../settings/values.ts";
import { PromptEncoder, type PromptRules } from "./prompts.ts";

/** What the text encoders read for one image. */
export interface ImageTokens {
  prompt: TokenPair;
  /** null = zeros, or no guidance. */
  negative: TokenPair | null;
}

interface Prompts {
  prompt: string;
  prompt2: string | undefined;
  negativePrompt: string | null;
  negativePrompt2: string | undefined;
  guidanceScale: number;
}

interface Encoding {
  embeddings: EmbeddingTable;
  rules: PromptRules;
  naming: Naming;
}

interface WithTokens<Image> {
  images: (Image & { tokens: ImageTokens })[];
  /** The empty prompt, where weights interpolate from it; else null. */
  emptyTokens: TokenPair | null;
  /** One sentence each. */
  warnings: string[];
}

/** The texts in which embeddings may be mentioned: those between weights. */
export function textsOf(images: readonly Prompts[], syntax: PromptSyntax): Set<string> {
  const prompts = new Set(images.flatMap((image) => promptsOf(image)));
  return new Set(
    [...prompts].flatMap((prompt) => piecesOf(prompt, syntax).map(({ text }) => text)),
  );
}

/** Throws "bad-option" for prompts that cannot be read as `rules` say. */
export function withTokens<Image extends Prompts>(
  images: readonly Image[],
  model: Model,
  encoding: Encoding,
): WithTokens<Image> {
  const { rules, naming } = encoding;
  const warnings = new Set<string>();
  const encoder = new PromptEncoder(model, (sentence) => void warnings.add(sentence), encoding);
  checkClipSkip(rules, model, naming);
  if (rules.promptSyntax === "a1111" && rules.clipSkip > 2) {
    warnings.add(`${naming("clipSkip")} is not used: A1111 ignores it for SDXL.`);
  }
  const withTheirs = images.map((image) => {
    const { prompt, prompt2, negativePrompt, negativePrompt2, guidanceScale } = image;
    const isGuided = guidanceScale > 1;
    const ofPrompt = encoder.prompt(prompt, prompt2);
    const negative = isGuided ? encoder.negative(negativePrompt, negativePrompt2) : null;
    if (isGuided && negative === null && negativePrompt2 !== undefined) {
      warnings.add(`${naming("negativePrompt2")} is not used: the negative prompt is zeros.`);
    }
    return { ...image, tokens: { prompt: ofPrompt, negative } };
  });
  const interpolates =
    rules.promptSyntax === "comfyui" &&
    withTheirs.some(({ tokens }) => isWeighed(tokens.prompt) || isWeighed(tokens.negative));
  const emptyTokens = interpolates ? encoder.empty() : null;
  return { images: withTheirs, emptyTokens, warnings: [...warnings] };
}

/** Whether two images can be in one batch. Zeros are as good in any length. */
export function fitTogether(a: ImageTokens, b: ImageTokens): boolean {
  const isLike = (one: TokenPair | null, other: TokenPair | null) =>
    one === null || other === null || one.ids2.length === other.ids2.length;
  return isLike(a.prompt, b.prompt) && isLike(a.negative, b.negative);
}

// --- internal ---

function promptsOf(image: Prompts): string[] {
  const { prompt, prompt2, negativePrompt, negativePrompt2, guidanceScale } = image;
  const negatives = guidanceScale > 1 ? [negativePrompt ?? "", negativePrompt2] : [];
  return [prompt, prompt2, ...negatives].filter((text) => text !== undefined);
}

function checkClipSkip({ clipSkip }: PromptRules, { clip, clip2 }: Model, naming: Naming): void {
  if (clipSkip <= 2) return;
  const layerCount = Math.min(clip?.layerCount ?? clip2.layerCount, clip2.layerCount);
  if (clipSkip - 2 < layerCount) return;
  throw new BasedXLError(
    "bad-option",
    `${naming("clipSkip")} must be at most ${layerCount + 1}: a text encoder of the model has \
${layerCount} layers.`,
  );
}

function isWeighed(tokens: TokenPair | null): boolean {
  return tokens?.weights !== undefined || tokens?.weights2 !== undefined;
}
