/**
 * Prompts with choices that a seed decides, as the Dynamic Prompts extension writes them: `{a|b}`,
 * `{0.3::a|b}` with weights (1 where there is none), `{2$$a|b|c}` for two of them, `__name__` for a
 * line of a file. A backslash before a brace keeps it; braces that do not close are text.
 */
import { badOption, escaped } from "../errors.ts";

interface Choices {
  seed: bigint;
  /** The lines behind a name; throws where there are none. */
  linesOf(name: string): readonly string[];
}

/**
 * The text with every choice made; the same seed makes the same. Throws "bad-option" where lines
 * that name files again make more and more of them.
 */
export function choose(text: string, { seed, linesOf }: Choices): string {
  const random = generator(seed);
  return expand(text, { random, linesOf, room: lengthMax }, 0);
}

// --- internal ---

interface Chooser {
  /** At least 0 and below 1. */
  random(): number;
  linesOf(name: string): readonly string[];
  /** Characters that lines of files may still bring. */
  room: number;
}

/** Lines may name files again; deeper ones are left as they are. */
const depthMax = 20;
/** Of all lines that are taken: two names in a line of its own file double at each depth. */
const lengthMax = 2 ** 18;

function expand(text: string, chooser: Chooser, depth: number): string {
  if (depth === depthMax) return text;
  const ends = closings(text);
  let result = "";
  for (let at = 0; at < text.length; ) {
    wildcard.lastIndex = at;
    const [mark, name] = wildcard.exec(text) ?? [];
    const end = ends.get(at) ?? -1;
    if (text[at] === "\\" && /[{}]/.test(text[at + 1] ?? "")) {
      result += text[at + 1];
      at += 2;
    } else if (end > at) {
      result += chosen(text.slice(at + 1, end), chooser, depth);
      at = end + 1;
    } else if (mark !== undefined) {
      const lines = chooser.linesOf(name!);
      const line = lines[Math.floor(chooser.random() * lines.length)] ?? "";
      takeRoom(chooser, line, name!);
      result += expand(line, chooser, depth + 1);
      at += mark.length;
    } else {
      result += text[at];
      at += 1;
    }
  }
  return result;
}

/** An empty line takes some too. */
function takeRoom(chooser: Chooser, line: string, name: string): void {
  chooser.room -= line.length + 1;
  if (chooser.room >= 0) return;
  throw badOption(
    `The prompt takes more than ${lengthMax / 2 ** 10} KiB of lines from files, because lines of \
${escaped(name, 60)}.txt name files again.`,
  );
}

const wildcard = /__([\p{L}\p{N}][\p{L}\p{N}_/ .-]*?)__/uy;

/** The brace that closes each one that is closed, by their indexes, in one pass over the text. */
export function closings(text: string): Map<number, number> {
  const found = new Map<number, number>();
  const open: number[] = [];
  for (let at = 0; at < text.length; at++) {
    if (text[at] === "\\") at += 1;
    else if (text[at] === "{") open.push(at);
    else if (text[at] === "}" && open.length > 0) found.set(open.pop()!, at);
  }
  return found;
}

function chosen(inner: string, chooser: Chooser, depth: number): string {
  const [, count = "1", rest = inner] = /^\s*(\d{1,3})\$\$(.*)$/s.exec(inner) ?? [];
  const options = optionsOf(rest);
  const picked: string[] = [];
  while (picked.length < Number(count) && options.length > 0) {
    const sum = options.reduce((all, { weight }) => all + weight, 0);
    let left = chooser.random() * sum;
    const found = options.findIndex(({ weight }) => {
      left -= weight;
      return left < 0;
    });
    const [option] = options.splice(Math.max(found, 0), 1);
    picked.push(expand(option!.text, chooser, depth + 1));
  }
  return picked.join(", ");
}

function optionsOf(inner: string): { text: string; weight: number }[] {
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let at = 0; at < inner.length; at++) {
    if (inner[at] === "\\") at += 1;
    else if (inner[at] === "{") depth += 1;
    else if (inner[at] === "}") depth -= 1;
    else if (inner[at] === "|" && depth === 0) {
      parts.push(inner.slice(start, at));
      start = at + 1;
    }
  }
  return [...parts, inner.slice(start)].map((part) => {
    const [, number, text] = /^\s*(\d+(?:\.\d*)?|\.\d+)::(.*)$/s.exec(part) ?? [];
    return text === undefined ? { text: part, weight: 1 } : { text, weight: Number(number) };
  });
}

/** splitmix64, of which 53 bits make a number. */
function generator(seed: bigint): () => number {
  const mask = 2n ** 64n - 1n;
  let state = seed & mask;
  return () => {
    state = (state + 0x9e3779b97f4a7c15n) & mask;
    let mixed = state;
    mixed = ((mixed ^ (mixed >> 30n)) * 0xbf58476d1ce4e5b9n) & mask;
    mixed = ((mixed ^ (mixed >> 27n)) * 0x94d049bb133111ebn) & mask;
    return Number((mixed ^ (mixed >> 31n)) >> 11n) / 2 ** 53;
  };
}
