/**
 * What a prompt's text could go on with: names of LoRAs in `<lora:…` and of embeddings anywhere
 * else. Pure functions of the text, the caret and the names.
 */

export interface Names {
  loras: readonly string[];
  embeddings: readonly string[];
}

export interface Completion {
  /** The part of the text that a choice replaces. */
  from: number;
  to: number;
  options: readonly CompletionOption[];
}

export interface CompletionOption {
  kind: "LoRA" | "embedding";
  name: string;
  /** What is written. */
  insert: string;
}

const optionCountMax = 8;
/** Embeddings are offered from here on, so that ordinary words bring up no list. */
const letterCountMin = 2;

/** null where there is nothing to offer. */
export function completionAt(text: string, caret: number, names: Names): Completion | null {
  const before = text.slice(0, caret);
  const tag = /<(?:l|lo|lor|lora|lora:([^<>:]*))$/i.exec(before);
  if (tag) {
    const options = ranked(names.loras, tag[1] ?? "").map(
      (name): CompletionOption => ({
        kind: "LoRA",
        name,
        insert: `<lora:${name}:1>`,
      }),
    );
    const rest = /^[^<>,\s]*>/.exec(text.slice(caret))?.[0].length ?? 0;
    return found({ from: caret - tag[0].length, to: caret + rest, options });
  }
  const [word = "", marked, typed = ""] = /(embedding:)?([^\s,()<>[\]{}|:]*)$/i.exec(before) ?? [];
  if (!marked && typed.length < letterCountMin) return null;
  const options = ranked(names.embeddings, typed).map(
    (name): CompletionOption => ({
      kind: "embedding",
      name,
      insert: marked ? `embedding:${name}` : name,
    }),
  );
  // A word that is whole already needs no list.
  if (options.length === 1 && options[0]!.insert === word) return null;
  return found({ from: caret - word.length, to: caret, options });
}

/** The text with the option in its place, and the caret behind it. */
export function accept(
  text: string,
  { from, to }: Completion,
  { insert }: CompletionOption,
): { text: string; caret: number } {
  return { text: text.slice(0, from) + insert + text.slice(to), caret: from + insert.length };
}

// --- internal ---

function found(completion: Completion): Completion | null {
  return completion.options.length === 0 ? null : completion;
}

/** Names that begin with the letters first, then those that have them. */
function ranked(names: readonly string[], letters: string): readonly string[] {
  const wanted = letters.toLowerCase();
  const place = (name: string) => name.toLowerCase().indexOf(wanted);
  return names
    .filter((name) => place(name) >= 0)
    .sort((a, b) => Math.min(place(a), 1) - Math.min(place(b), 1) || a.localeCompare(b))
    .slice(0, optionCountMax);
}
