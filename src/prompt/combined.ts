/**
 * Prompts that an image combines, as A1111 writes them: `a cat :1.2 AND a dog :0.8`. Each has a
 * branch of its own, and its weight times the guidance scale. A number behind a colon at the end is
 * a weight without AND too.
 * Source: AUTOMATIC1111 modules/prompt_parser.py, `get_multicond_prompt_list`.
 */

export interface CombinedPrompt {
  text: string;
  weight: number;
}

/** There is always one. */
export function combinedPrompts(prompt: string): CombinedPrompt[] {
  return prompt.split(and).map((part) => {
    const match = ending.exec(part)!;
    return { text: part.slice(0, match.index), weight: Number(match[1] ?? 1) };
  });
}

// --- internal ---

const wordCharacter = "[\\p{L}\\p{N}_]";
const and = new RegExp(`(?<!${wordCharacter})AND(?!${wordCharacter})`, "u");
/** From where the rest is a weight and spaces, at the latest from the end on. */
const ending = /(?:\s*:\s*([-+]?(?:\d+\.?|\d*\.\d+)))?\s*$/u;
