/**
 * Where prompts mention embeddings: as a whole word in any case (A1111), `embedding:name`
 * (ComfyUI) and `<embed:name>` (SwarmUI). The names are those that exist: a prompt may come from a
 * stranger and must not name a path.
 */

/** A mention; `explicit` where the text cannot mean a word of its own. */
export interface Mention {
  name: string;
  explicit: boolean;
}

/** A text in parts: as it is, or a mention. */
export type Part = string | Mention;

/**
 * Makes the function for some names. `names` may stand alone in a prompt, `explicitNames` only
 * behind a mark; both as they are written, and any case matches. Mentions have the name as the
 * prompt writes it.
 */
export function mentionSplitter(
  names: Iterable<string>,
  explicitNames: Iterable<string>,
): (text: string) => Part[] {
  const bare = alternatives(names);
  const marked = alternatives(explicitNames);
  const pattern = new RegExp(
    [
      "<embed(?:ding)?:(?<tag>[^<>]*)>",
      `${notInWord}embedding:(?<marked>${marked}${noWordAfter}|[^\\s,;:()\\[\\]<>]+)`,
      `${notInWord}(?<word>${bare})${noWordAfter}`,
    ].join("|"),
    "giu",
  );
  return (text) => cut(text.normalize("NFC"), pattern);
}

// --- internal ---

/** The word characters of Unicode, as in added-tokens.ts. */
const wordCharacter = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]";
const notInWord = `(?<!${wordCharacter})`;
const noWordAfter = `(?!${wordCharacter})`;

/** Longer names stand before those that they begin with; one that never matches where none is. */
function alternatives(names: Iterable<string>): string {
  const all = [...names].filter((name) => name.trim() !== "").map((name) => name.normalize("NFC"));
  if (all.length === 0) return "(?!)";
  const sorted = all.sort((a, b) => b.length - a.length);
  return `(?:${sorted.map((name) => name.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")).join("|")})`;
}

function cut(text: string, pattern: RegExp): Part[] {
  const parts: Part[] = [];
  let done = 0;
  for (const match of text.matchAll(pattern)) {
    const { tag, marked, word } = match.groups ?? {};
    if (match.index > done) parts.push(text.slice(done, match.index));
    const name = (tag ?? marked ?? word ?? "").trim();
    parts.push({ name, explicit: word === undefined });
    done = match.index + match[0].length;
  }
  if (done < text.length) parts.push(text.slice(done));
  return parts;
}
