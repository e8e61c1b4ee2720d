/**
 * The tokens of each image of a request: its prompts in chunks, with weights and embeddings. A
 * prompt that changes on the way is several, which sets and the set of each step tell apart.
 */
import { isDeepStrictEqual } from "node:util";
import type { EmbeddingTable } from "../embeddings.ts";
import { BasedXLError, escaped } from "../errors.ts";
import type { Model } from "../models/model.ts";
import { promptCountMax, promptSetCountMax } from "../native/abi.ts";
import type { TokenPair } from "../native/handle.ts";
import { type CombinedPrompt, combinedPrompts } from "../prompt/combined.ts";
import { piecesOf } from "../prompt/pieces.ts";
import { type Turn, turnAt, turnsOf } from "../prompt/turns.ts";
import type { PromptSyntax } from "../settings/names.ts";
import type { Naming } from "../settings/values.ts";
import { PromptEncoder, type PromptRules } from "./prompts.ts";

/** What the text encoders read for one image. */
export interface ImageTokens {
  /** One per set, of every prompt that the image combines, one after the other. */
  prompts: TokenPair[];
  /** Of the prompts that it combines. */
  weights: readonly number[];
  /** Whether the negative branch is computed. */
  isGuided: boolean;
  /** One per set; null = zeros, or no guidance. */
  negatives: (TokenPair | null)[];
  /** The set that each step reads; null where there is one. */
  stepSets: readonly number[] | null;
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
  steps: StepCounts;
  /** Whether the sampler reads the negative branch at any guidance scale. */
  usesBothBranches: boolean;
}

/** What the fractions and numbers in prompts count. */
interface StepCounts {
  /** Evaluations of the model. */
  evaluations: number;
  /** Twice the steps for samplers that evaluate the model twice in each, as A1111 counts. */
  total: number;
}

interface WithTokens<Image> {
  images: (Image & { tokens: ImageTokens })[];
  /** The empty prompt, where weights interpolate from it; else null. */
  emptyTokens: TokenPair | null;
  /** One sentence each. */
  warnings: string[];
}

/** The texts in which embeddings may be mentioned: those between weights. */
export function textsOf(
  images: readonly Prompts[],
  syntax: PromptSyntax,
  { total }: StepCounts,
  usesBothBranches: boolean,
): Set<string> {
  const prompts = new Set(images.flatMap((image) => promptsOf(image, syntax, usesBothBranches)));
  const turns = [...prompts].flatMap((prompt) => turnsIn(prompt, syntax, total));
  const texts = new Set(turns.map(({ text }) => text));
  return new Set([...texts].flatMap((text) => piecesOf(text, syntax).map((piece) => piece.text)));
}

/** Throws "bad-option" for prompts that cannot be read as `rules` say. */
export function withTokens<Image extends Prompts>(
  images: readonly Image[],
  model: Model,
  encoding: Encoding,
): WithTokens<Image> {
  const { rules, naming, steps } = encoding;
  const warnings = new Set<string>();
  const encoder = new PromptEncoder(model, (sentence) => void warnings.add(sentence), encoding);
  checkClipSkip(rules, model, naming);
  if (rules.promptSyntax === "a1111" && rules.clipSkip > 2) {
    warnings.add(`${naming("clipSkip")} is not used: A1111 ignores it for SDXL.`);
  }
  if (rules.promptSyntax !== "a1111" && rules.emphasis !== "original") {
    warnings.add(`${naming("emphasis")} is not used: it needs ${naming("promptSyntax")} a1111.`);
  }
  const withTheirs = images.map((image) => {
    const { prompt, prompt2, negativePrompt, negativePrompt2, guidanceScale } = image;
    const parts = partsOf(prompt, prompt2, rules.promptSyntax, naming);
    const weights = parts.map(({ weight }) => weight);
    const isGuided = isGuidedBy(guidanceScale, parts, encoding.usesBothBranches);
    const [second, ...negatives] = [prompt2, negativePrompt ?? "", negativePrompt2].map((text) =>
      text === undefined ? undefined : turnsIn(text, rules.promptSyntax, steps.total),
    );
    const ofPrompts = parts.map(({ text }) => {
      const turns = turnsIn(text, rules.promptSyntax, steps.total);
      return entriesOf(turns, second, (one, other) => encoder.prompt(one, other));
    });
    const ofNegative = entriesOf(negatives[0]!, negatives[1], (one, other) => {
      return isGuided ? encoder.negative(negativePrompt === null ? null : one, other) : null;
    });
    const tokens = { ...inSets(ofPrompts, ofNegative, steps, encoder), weights, isGuided };
    if (isGuided && tokens.negatives[0] === null && negativePrompt2 !== undefined) {
      warnings.add(`${naming("negativePrompt2")} is not used: the negative prompt is zeros.`);
    }
    return { ...image, tokens };
  });
  const interpolates =
    rules.promptSyntax === "comfyui" &&
    withTheirs.some(({ tokens }) => [...tokens.prompts, ...tokens.negatives].some(isWeighed));
  const emptyTokens = interpolates ? encoder.empty() : null;
  return { images: withTheirs, emptyTokens, warnings: [...warnings] };
}

/** Whether two images can be in one batch. Zeros are as good in any length. */
export function fitTogether(a: ImageTokens, b: ImageTokens): boolean {
  const isLike = (one: TokenPair | null, other: TokenPair | null) =>
    one === null || other === null || one.ids2.length === other.ids2.length;
  return (
    a.isGuided === b.isGuided &&
    a.weights.length === b.weights.length &&
    a.prompts.length === b.prompts.length &&
    a.prompts.every((tokens, i) => isLike(tokens, b.prompts[i]!)) &&
    isLike(a.negatives[0]!, b.negatives[0]!) &&
    isDeepStrictEqual(a.stepSets, b.stepSets)
  );
}

// --- internal ---

function turnsIn(text: string, syntax: PromptSyntax, total: number): Turn[] {
  return syntax === "a1111" ? turnsOf(text, total) : [{ text, end: total }];
}

/** A prompt that is read up to step `end`. */
interface Entry<Tokens> {
  tokens: Tokens;
  key: string;
  end: number;
}

/** The entries of A1111's schedule, for both encoders together. */
function entriesOf<Tokens>(
  first: readonly Turn[],
  second: readonly Turn[] | undefined,
  encode: (text: string, text2?: string) => Tokens,
): Entry<Tokens>[] {
  const ends = new Set([...first, ...(second ?? [])].map(({ end }) => end));
  return [...ends]
    .sort((a, b) => a - b)
    .map((end) => {
      const texts = [first, second].map((turns) => turns?.find((turn) => end <= turn.end)?.text);
      return { tokens: encode(texts[0]!, texts[1]), key: JSON.stringify(texts), end };
    });
}

/**
 * The prompts that steps read together, each choice once. Entries that no step reads are there too:
 * A1111 counts them in the mean that weights restore.
 */
function inSets(
  prompts: readonly (readonly Entry<TokenPair>[])[],
  negatives: readonly Entry<TokenPair | null>[],
  { evaluations }: StepCounts,
  encoder: PromptEncoder,
): Pick<ImageTokens, "prompts" | "negatives" | "stepSets"> {
  const sides = [...prompts, negatives];
  const choices = new Map<string, readonly number[]>();
  const firstOf = (side: number, at: number) =>
    sides[side]!.findIndex(({ key }) => key === sides[side]![at]!.key);
  const setOf = (ats: readonly number[]): number => {
    const choice = ats.map((at, side) => firstOf(side, at));
    const key = choice.join();
    if (!choices.has(key)) choices.set(key, choice);
    return [...choices.keys()].indexOf(key);
  };
  const stepSets = Array.from({ length: evaluations }, (_, step) =>
    setOf(sides.map((entries) => turnAt(entries, step))),
  );
  for (const [side, entries] of sides.entries()) {
    for (const at of entries.keys()) {
      const isMissing = [...choices.values()].every((choice) => choice[side] !== firstOf(side, at));
      if (isMissing) setOf(sides.map((_, other) => (other === side ? at : 0)));
    }
  }
  const sets = [...choices.values()];
  if (sets.length > promptSetCountMax) {
    throw new BasedXLError(
      "bad-option",
      `The prompts change into ${sets.length} different ones on the way: ${promptSetCountMax} \
are possible.`,
    );
  }
  if (sets.length === 1) {
    const tokens = prompts.map((entries) => entries[0]!.tokens);
    return { prompts: tokens, negatives: [negatives[0]!.tokens], stepSets: null };
  }
  const side = <Tokens extends TokenPair | null>(
    entries: readonly Entry<Tokens>[],
    which: number,
  ) =>
    encoder.alike(sets.map((set) => entries[set[which]!]!.tokens)).map((tokens, set): Tokens => {
      const at = sets[set]![which]!;
      const isFirst = sets.findIndex((choice) => choice[which] === at) === set;
      const count = entries.filter(({ key }) => key === entries[at]!.key).length;
      return tokens === null ? tokens : { ...tokens, repeatCount: isFirst ? count : 0 };
    });
  return { prompts: prompts.flatMap(side), negatives: side(negatives, prompts.length), stepSets };
}

/** The prompts that an image combines: several under A1111's syntax. */
function partsOf(
  prompt: string,
  prompt2: string | undefined,
  syntax: PromptSyntax,
  naming: Naming,
): CombinedPrompt[] {
  if (syntax !== "a1111") return [{ text: prompt, weight: 1 }];
  const parts = combinedPrompts(prompt);
  const refuse = (message: string) => new BasedXLError("bad-option", message);
  if (parts.length > promptCountMax) {
    throw refuse(
      `${naming("prompt")} combines ${parts.length} prompts by AND: ${promptCountMax} are \
possible.`,
    );
  }
  const heavy = parts.find(({ weight }) => !Number.isFinite(Math.fround(weight)));
  if (heavy !== undefined) {
    throw refuse(
      `${naming("prompt")} has "${escaped(heavy.text, 60)}" with a weight of ${heavy.weight}.`,
    );
  }
  if (prompt2 !== undefined && combinedPrompts(prompt2).length > 1) {
    throw refuse(
      `${naming("prompt2")} combines prompts by AND, which only ${naming("prompt")} can.`,
    );
  }
  return parts;
}

function promptsOf(image: Prompts, syntax: PromptSyntax, usesBothBranches: boolean): string[] {
  const { prompt, prompt2, negativePrompt, negativePrompt2, guidanceScale } = image;
  const parts = syntax === "a1111" ? combinedPrompts(prompt) : [{ text: prompt, weight: 1 }];
  const isGuided = isGuidedBy(guidanceScale, parts, usesBothBranches);
  const negatives = isGuided ? [negativePrompt ?? "", negativePrompt2] : [];
  const texts = [...parts.map(({ text }) => text), prompt2, ...negatives];
  return texts.filter((text) => text !== undefined);
}

/** A1111 computes the negative branch at any scale where prompts have weights. */
function isGuidedBy(
  guidanceScale: number,
  parts: readonly CombinedPrompt[],
  usesBothBranches: boolean,
): boolean {
  const isCombined = parts.length > 1 || parts[0]?.weight !== 1;
  return guidanceScale > 1 || usesBothBranches || isCombined;
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
