/**
 * A prompt in pieces with a weight each: what the tools' parsers make of brackets. How weights are
 * applied is native (zig/pipeline/emphasis.zig).
 */
import type { PromptSyntax } from "../settings/names.ts";
import { parseA1111 } from "./a1111.ts";
import { parseComfyui } from "./comfyui.ts";
import type { Piece } from "./piece.ts";

/** The pieces of a prompt, in order. A plain one is a piece of its own. */
export function piecesOf(text: string, syntax: PromptSyntax): Piece[] {
  if (syntax === "a1111") return parseA1111(text);
  if (syntax === "comfyui") return parseComfyui(text);
  return [{ text, weight: 1 }];
}

/** Something in the text that both tools read as weights; null where there is nothing. */
export function weightsIn(text: string): string | null {
  return /(?<!\\)\([^()]*:\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*\)/.exec(text)?.[0] ?? null;
}
