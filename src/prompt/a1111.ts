/**
 * Weights as A1111 and Forge write them: `(a)` 1.1, `(a:1.3)`, `[a]` 1/1.1, a backslash before what
 * is no bracket, `BREAK` for a new chunk. The quirks are theirs: a number in the brackets' end
 * counts without a bracket before it as text, and `BREAK` inside a weight is a word.
 * Source: AUTOMATIC1111 modules/prompt_parser.py, `parse_prompt_attention`.
 */
import type { Piece } from "./piece.ts";

/** Whether a piece is the mark for a new chunk. */
export function isBreak({ text, weight }: Piece): boolean {
  return text === breakMark && weight === -1;
}

/** There is always a piece; neighbours have different weights. */
export function parseA1111(prompt: string): Piece[] {
  const pieces: Piece[] = [];
  const round: number[] = [];
  const square: number[] = [];
  const multiply = (first: number, factor: number) => {
    for (const piece of pieces.slice(first)) piece.weight *= factor;
  };
  for (const { 0: text, 1: number } of prompt.matchAll(parts)) {
    const weight = number !== undefined && isNumber.test(number) ? Number(number) : null;
    if (text.startsWith("\\")) pieces.push({ text: text.slice(1), weight: 1 });
    else if (text === "(") round.push(pieces.length);
    else if (text === "[") square.push(pieces.length);
    else if (weight !== null && round.length > 0) multiply(round.pop()!, weight);
    else if (text === ")" && round.length > 0) multiply(round.pop()!, bracket);
    else if (text === "]" && square.length > 0) multiply(square.pop()!, 1 / bracket);
    else pieces.push(...atBreaks(text));
  }
  for (const first of round) multiply(first, bracket);
  for (const first of square) multiply(first, 1 / bracket);
  return merged(pieces);
}

// --- internal ---

const bracket = 1.1;
const breakMark = "BREAK";

const parts = /\\[()[\]\\]?|[([]|:\s*([+-]?[.\d]+)\s*\)|[)\]]|[^\\()[\]:]+|:/gu;
/** What Python's float takes of it; A1111 fails on the rest. */
const isNumber = /^[+-]?(\d+\.?\d*|\.\d+)$/;

const wordCharacter = "[\\p{L}\\p{N}_]";
const breaks = new RegExp(`\\s*(?<!${wordCharacter})${breakMark}(?!${wordCharacter})\\s*`, "gu");

function atBreaks(text: string): Piece[] {
  return text.split(breaks).flatMap((part, index) => {
    const piece = { text: part, weight: 1 };
    return index === 0 ? [piece] : [{ text: breakMark, weight: -1 }, piece];
  });
}

function merged(pieces: readonly Piece[]): Piece[] {
  const result: Piece[] = [];
  for (const { text, weight } of pieces) {
    const last = result.at(-1);
    if (last?.weight === weight) last.text += text;
    else result.push({ text, weight });
  }
  return result.length === 0 ? [{ text: "", weight: 1 }] : result;
}
