/**
 * The tokens of each image of a request: its prompts in chunks, with weights and embeddings. A
 * prompt that changes on the way is several, which sets and the set of each step tell apart.
 */
import { isDeepStrictEqual } from "node:util";
import type { EmbeddingTable } from "../embeddings.ts";
import { BasedXLError } from "../errors.ts";
import type { Model } from "../models/model.ts";
import { promptSetCountMax } from "../native/abi.ts";
import type { TokenPair } from "../native/handle.ts";
import { piecesOf } from "../prompt/pieces.ts";
import { type Turn, turnAt, turnsOf } from "../prompt/turns.ts";
import type { PromptSyntax } from "../settings/names.ts";
import type { Naming } from "../settings/values.ts";
import { PromptEncoder, type PromptRules } from "./prompts.ts";

/** What the text encoders read for one image. */
export interface ImageTokens {
  /** One per set. */
  prompts: TokenPair[];
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
): Set<string> {
  const prompts = new Set(images.flatMap((image) => promptsOf(image)));
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
    const isGuided = guidanceScale > 1;
    if (rules.promptSyntax === "a1111") refuseAnd([prompt, prompt2 ?? ""], naming);
    const turns = [prompt, prompt2, negativePrompt ?? "", negativePrompt2].map((text) =>
      text === undefined ? undefined : turnsIn(text, rules.promptSyntax, steps.total),
    );
    const [first, second, negativeFirst, negativeSecond] = turns;
    const ofPrompt = entriesOf(first!, second, (one, other) => encoder.prompt(one, other));
    const ofNegative = entriesOf(negativeFirst!, negativeSecond, (one, other) => {
      return isGuided ? encoder.negative(negativePrompt === null ? null : one, other) : null;
    });
    const tokens = inSets(ofPrompt, ofNegative, steps, encoder);
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
    isLike(a.prompts[0]!, b.prompts[0]!) &&
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
 * The pairs of prompt and negative prompt that steps read, each once. Entries that no step reads
 * are there too: A1111 counts them in the mean that weights restore.
 */
function inSets(
  prompts: readonly Entry<TokenPair>[],
  negatives: readonly Entry<TokenPair | null>[],
  { evaluations }: StepCounts,
  encoder: PromptEncoder,
): ImageTokens {
  const pairs = new Map<string, readonly [number, number]>();
  const indexOf = (entries: readonly { key: string }[], at: number) =>
    entries.findIndex(({ key }) => key === entries[at]!.key);
  const setOf = (prompt: number, negative: number): number => {
    const pair = [indexOf(prompts, prompt), indexOf(negatives, negative)] as const;
    const key = pair.join();
    if (!pairs.has(key)) pairs.set(key, pair);
    return [...pairs.keys()].indexOf(key);
  };
  const stepSets = Array.from({ length: evaluations }, (_, step) =>
    setOf(turnAt(prompts, step), turnAt(negatives, step)),
  );
  const isMissing = (side: 0 | 1, at: number) =>
    ![...pairs.values()].some((pair) => pair[side] === at);
  for (const at of prompts.keys()) if (isMissing(0, indexOf(prompts, at))) setOf(at, 0);
  for (const at of negatives.keys()) if (isMissing(1, indexOf(negatives, at))) setOf(0, at);
  const sets = [...pairs.values()];
  if (sets.length > promptSetCountMax) {
    throw new BasedXLError(
      "bad-option",
      `The prompts change into ${sets.length} different ones on the way: ${promptSetCountMax} \
are possible.`,
    );
  }
  if (sets.length === 1) {
    return { prompts: [prompts[0]!.tokens], negatives: [negatives[0]!.tokens], stepSets: null };
  }
  const side = <Tokens extends TokenPair | null>(entries: readonly Entry<Tokens>[], which: 0 | 1) =>
    encoder.alike(sets.map((pair) => entries[pair[which]]!.tokens)).map((tokens, set): Tokens => {
      const at = sets[set]![which];
      const isFirst = sets.findIndex((pair) => pair[which] === at) === set;
      const count = entries.filter(({ key }) => key === entries[at]!.key).length;
      return tokens === null ? tokens : { ...tokens, repeatCount: isFirst ? count : 0 };
    });
  return { prompts: side(prompts, 0), negatives: side(negatives, 1), stepSets };
}

function refuseAnd(texts: readonly string[], naming: Naming): void {
  if (!texts.some((text) => /(?<![\p{L}\p{N}_])AND(?![\p{L}\p{N}_])/u.test(text))) return;
  throw new BasedXLError(
    "bad-option",
    `${naming("prompt")} combines prompts by AND, which this version does not do: write them as \
one prompt, or "and" in small letters.`,
  );
}

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
