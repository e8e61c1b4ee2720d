/**
 * Cuts added tokens out of a text before it is split into words: the leftmost, longest match first,
 * tokens that are not `normalized` in the text as it is, the others in the normalized rest.
 *
 * Source: the tokenizers library, tokenizer/added_vocabulary.rs (`find_matches`).
 */

/**
 * An entry of tokenizer.json's `added_tokens`. `lstrip` and `rstrip`: the token takes the white
 * space beside it; `single_word`: it is no part of a longer word.
 */
export interface AddedToken {
  id: number;
  content: string;
  normalized: boolean;
  special: boolean;
  lstrip: boolean;
  rstrip: boolean;
  single_word: boolean;
}

/** An added token, or normalized text between two of them. */
export type Section = AddedToken | string;

/** Makes the function that cuts a text into sections; `normalize` is the tokenizer's. */
export function addedTokenSplitter(
  tokens: readonly AddedToken[],
  normalize: (text: string) => string,
): (text: string) => Section[] {
  const inRawText = matcherOf(
    tokens.filter((token) => !token.normalized),
    (text) => text,
  );
  const inNormalized = matcherOf(
    tokens.filter((token) => token.normalized),
    normalize,
  );
  return (text) =>
    cut(text, inRawText).flatMap((section) =>
      typeof section === "string" ? cut(normalize(section), inNormalized) : [section],
    );
}

// --- internal ---

interface Matcher {
  /** null without tokens. */
  pattern: RegExp | null;
  tokens: Map<string, AddedToken>;
}

function matcherOf(tokens: readonly AddedToken[], normalize: (text: string) => string): Matcher {
  const byText = new Map<string, AddedToken>();
  for (const token of tokens) {
    const text = normalize(token.content);
    if (text !== "" && !byText.has(text)) byText.set(text, token);
  }
  // An alternation takes the first that fits: the longer ones stand before those they begin with.
  const texts = [...byText.keys()].sort((a, b) => b.length - a.length);
  const pattern = texts.map((text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")).join("|");
  return { pattern: texts.length === 0 ? null : new RegExp(pattern, "gu"), tokens: byText };
}

function cut(text: string, { pattern, tokens }: Matcher): Section[] {
  if (pattern === null) return text === "" ? [] : [text];
  const sections: Section[] = [];
  let done = 0;
  for (const match of text.matchAll(pattern)) {
    const token = tokens.get(match[0])!;
    let start = match.index;
    let end = start + match[0].length;
    const before = text.slice(0, start);
    const after = text.slice(end);
    if (token.single_word && (endsWithWord.test(before) || startsWithWord.test(after))) continue;
    // Space that the token before has taken is gone.
    if (token.lstrip) start = Math.max(done, start - (spaceAtEnd.exec(before)?.[0].length ?? 0));
    if (token.rstrip) end += spaceAtStart.exec(after)?.[0].length ?? 0;
    if (start > done) sections.push(text.slice(done, start));
    sections.push(token);
    done = end;
  }
  if (done < text.length) sections.push(text.slice(done));
  return sections;
}

/** The word characters and the white space of Unicode, as in Rust's regular expressions. */
const wordCharacter = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]";
const endsWithWord = new RegExp(`${wordCharacter}$`, "u");
const startsWithWord = new RegExp(`^${wordCharacter}`, "u");
const spaceAtEnd = /\p{White_Space}+$/u;
const spaceAtStart = /^\p{White_Space}+/u;
