/**
 * JSON as Python writes and reads it: diffusers saves -Infinity, Infinity and NaN as bare words,
 * and some editors put a byte order mark in front.
 */
import { BasedXLError, escaped } from "../errors.ts";
import { readTextFile } from "./files.ts";

/**
 * Parses the file at `path` as JSON. Throws "bad-model" when it is missing, unreadable or no JSON.
 */
export async function readJsonFile(path: string): Promise<unknown> {
  const text = await readTextFile(path, "a diffusers folder must have it");
  try {
    return parseJson(text);
  } catch (error) {
    const reason = escaped((error as Error).message, 200);
    throw new BasedXLError(
      "bad-model",
      `${path} is not valid JSON (${reason}); download the file again.`,
    );
  }
}

/** JSON.parse that also takes Python's three words for numbers outside JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (!/Infinity|NaN/.test(text)) throw error;
  }
  const marked = text.replace(wordsOutsideStrings, (found) => {
    if (found.startsWith('"')) return found;
    return found === "NaN" ? JSON.stringify(nanMark) : found.replace("Infinity", "1e999");
  });
  return JSON.parse(marked, (_, value) => (value === nanMark ? Number.NaN : value));
}

// --- internal ---

const wordsOutsideStrings = /"(?:[^"\\]|\\.)*"|(?<![\w.+-])(?:-?Infinity|NaN)(?![\w.])/g;
/** Stands for NaN between the two steps; no name in a model's files begins with a NUL. */
const nanMark = "\0NaN";
