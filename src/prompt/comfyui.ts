/**
 * Weights as ComfyUI writes them: `(a)` 1.1 times the weight around it, `(a:1.3)` 1.3 whatever is
 * around it, a backslash before a round bracket that is text. Square brackets and `BREAK` are text.
 * Source: ComfyUI comfy/sd1_clip.py, `token_weights` and `parse_parentheses`.
 */
import type { Piece } from "./piece.ts";

/** No piece is empty text; an empty prompt has none. */
export function parseComfyui(prompt: string): Piece[] {
  const pieces: Piece[] = [];
  // Without recursion: brackets may be as deep as the prompt is long.
  const open: OpenPiece[] = [{ text: escapeBrackets(prompt), weight: 1, isParsed: false }];
  for (let each = open.pop(); each !== undefined; each = open.pop()) {
    const { text, weight, isParsed } = each;
    if (isParsed) pieces.push({ text: unescapeBrackets(text), weight });
    else
      open.push(
        ...atBrackets(text)
          .reverse()
          .map((part) => opened(part, weight)),
      );
  }
  return pieces;
}

// --- internal ---

interface OpenPiece extends Piece {
  /** Whether the text has no brackets left that count. */
  isParsed: boolean;
}

function opened(text: string, weight: number): OpenPiece {
  const isBracket = text.length >= 2 && text.startsWith("(") && text.endsWith(")");
  if (!isBracket) return { text, weight, isParsed: true };
  const inner = text.slice(1, -1);
  const colon = inner.lastIndexOf(":");
  const number = colon > 0 ? pythonFloat(inner.slice(colon + 1)) : null;
  if (number === null) return { text: inner, weight: weight * 1.1, isParsed: false };
  return { text: inner.slice(0, colon), weight: number, isParsed: false };
}

/** Cuts before each outermost "(" and behind the ")" that closes it. */
function atBrackets(text: string): string[] {
  const parts: string[] = [];
  let start = 0;
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    if (text[at] === "(") {
      if (depth === 0 && at > start) {
        parts.push(text.slice(start, at));
        start = at;
      }
      depth += 1;
    } else if (text[at] === ")") {
      depth -= 1;
      if (depth === 0) {
        parts.push(text.slice(start, at + 1));
        start = at + 1;
      }
    }
  }
  if (start < text.length) parts.push(text.slice(start));
  return parts;
}

/** What Python's float takes; infinities and NaN, which it also takes, are no weights. */
function pythonFloat(text: string): number | null {
  const digits = "\\d+(?:_\\d+)*";
  const number = `(?:${digits}\\.?(?:${digits})?|\\.${digits})(?:e[+-]?${digits})?`;
  const isNumber = new RegExp(`^\\s*[+-]?${number}\\s*$`, "i").test(text);
  const value = isNumber ? Number(text.replaceAll("_", "")) : Number.NaN;
  return Number.isFinite(value) ? value : null;
}

/** As ComfyUI hides them from its parser. */
const hidden = { ")": "\u0000\u0001", "(": "\u0000\u0002" };

function escapeBrackets(text: string): string {
  return text.replaceAll("\\)", hidden[")"]).replaceAll("\\(", hidden["("]);
}

function unescapeBrackets(text: string): string {
  return text.replaceAll(hidden[")"], ")").replaceAll(hidden["("], "(");
}
