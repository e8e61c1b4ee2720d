/**
 * JSON that other programs put into images: read with a limit, seeds of 64 bits whole, and Python's
 * NaN and Infinity as null.
 */

export type JsonObject = Readonly<Record<string, unknown>>;

/** The object that `text` is; null where it is none, is huge or nested without end. */
export function parseForeign(text: string, lengthMax = textMax): JsonObject | null {
  if (text.length > lengthMax || !/^\s*\{/.test(text)) return null;
  const plain = plainJson(text);
  if (plain === null) return null;
  try {
    const value: unknown = JSON.parse(plain);
    return isObject(value) ? value : null;
  } catch {
    return null;
  }
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

/** Any value as words: String() of an object would call its toString, which may be no function. */
export function wordsOf(value: unknown): string {
  return typeof value === "object" && value !== null ? JSON.stringify(value) : String(value);
}

/** Also of a number in quotes. */
export function numberOf(value: unknown): number | undefined {
  const number = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
  return typeof number === "number" && Number.isFinite(number) ? number : undefined;
}

// --- internal ---

/** Graphs of ComfyUI have up to a few hundred KB. */
const textMax = 2 ** 22;
const depthMax = 200;

/**
 * The text with null for NaN, and in quotes the whole numbers that a double cannot hold; null for
 * brackets that are nested too deep and for a text that never ends.
 */
function plainJson(text: string): string | null {
  const parts: string[] = [];
  let depth = 0;
  let done = 0;
  const replace = (from: number, to: number, by: string) => {
    parts.push(text.slice(done, from), by);
    done = to;
  };
  for (let at = 0; at < text.length; ) {
    const letter = text[at]!;
    if (letter === '"') {
      at++;
      while (at < text.length && text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
      if (at >= text.length) return null;
      at++;
      continue;
    }
    if (letter === "[" || letter === "{") depth++;
    if (letter === "]" || letter === "}") depth--;
    if (depth > depthMax) return null;
    token.lastIndex = at;
    const [found] = /[-\dNI]/.test(letter) ? (token.exec(text) ?? []) : [];
    if (found === undefined) {
      at++;
      continue;
    }
    const isWhole = /^-?\d+$/.test(found);
    if (/[NI]/.test(found)) replace(at, at + found.length, "null");
    else if (isWhole && found.length >= exactDigits) replace(at, at + found.length, `"${found}"`);
    at += found.length;
  }
  return parts.join("") + text.slice(done);
}

/** A number, as Python writes it too. */
const token = /-?(?:NaN|Infinity|[\d.eE+-]+)/y;
/** Fewer digits fit into a double. */
const exactDigits = 16;
