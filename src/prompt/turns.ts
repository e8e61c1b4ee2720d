/**
 * Prompts that change on the way, as A1111 writes them: `[a:b:0.4]` from a to b, `[b:0.4]` from
 * nothing, `[a::0.4]` to nothing (a fraction of the steps, or a number of them without a point),
 * and `[a|b]` in turns. What cannot be read is text.
 * Source: AUTOMATIC1111 modules/prompt_parser.py, `get_learned_conditioning_prompt_schedules`.
 */

/** A text, and the step that it is read up to; the first step is 0. */
export interface Turn {
  text: string;
  end: number;
}

/** The texts of a prompt in their order; the last one's `end` is `stepCount`. */
export function turnsOf(prompt: string, stepCount: number): Turn[] {
  const parts = new Parser(prompt).parse();
  if (parts === null) return [{ text: prompt, end: stepCount }];
  const ends = new Set([stepCount]);
  collectEnds(parts, stepCount, ends);
  return [...ends]
    .sort((a, b) => a - b)
    .map((end) => ({ text: textAt(parts, end, stepCount), end }));
}

/** Which of the texts a step reads: A1111's first text has a step more than it says. */
export function turnAt(turns: readonly { end: number }[], step: number): number {
  const index = turns.findIndex(({ end }) => step <= end);
  return Math.max(index, 0);
}

// --- internal ---

type Part =
  | string
  | { before: Part[]; after: Part[]; when: string }
  /** In turns. */
  | { options: Part[][] };

/** Deeper brackets are text. */
const depthMax = 200;

/** What lark's grammar accepts, by descent: brackets that do not fit together are text. */
class Parser {
  private readonly known = new Map<number, { parts: Part[]; end: number } | null>();

  constructor(private readonly text: string) {}

  /** null where a text has something that only stands in brackets. */
  parse(): Part[] | null {
    const parts: Part[] = [];
    for (let at = 0; at < this.text.length; ) {
      const prompt = this.prompt(at, 0);
      parts.push(...prompt.parts);
      at = prompt.end;
      if (at === this.text.length) break;
      const character = this.text[at]!;
      if (!"()[]:".includes(character)) return null;
      parts.push(character);
      at += 1;
    }
    return parts;
  }

  // --- internal ---

  /** The longest run of text and brackets that fit together; it may be empty. */
  private prompt(start: number, depth: number): { parts: Part[]; end: number } {
    const parts: Part[] = [];
    let end = start;
    for (;;) {
      plain.lastIndex = end;
      const text = plain.exec(this.text)?.[0];
      const found = text === undefined ? this.bracket(end, depth) : null;
      if (text !== undefined) {
        parts.push(text);
        end += text.length;
      } else if (found !== null) {
        parts.push(...found.parts);
        end = found.end;
      } else return { parts, end };
    }
  }

  private bracket(start: number, depth: number) {
    const opening = this.text[start];
    if ((opening !== "(" && opening !== "[") || depth === depthMax) return null;
    const known = this.known.get(start);
    if (known !== undefined) return known;
    const found = opening === "(" ? this.round(start, depth + 1) : this.square(start, depth + 1);
    this.known.set(start, found);
    return found;
  }

  private round(start: number, depth: number) {
    const first = this.prompt(start + 1, depth);
    const inner = [...first.parts];
    let { end } = first;
    if (this.text[end] === ":") {
      const second = this.prompt(end + 1, depth);
      inner.push(":", ...second.parts);
      end = second.end;
    }
    if (this.text[end] !== ")") return null;
    return { parts: ["(", ...inner, ")"], end: end + 1 };
  }

  private square(start: number, depth: number) {
    const first = this.prompt(start + 1, depth);
    const { end } = first;
    if (this.text[end] === "]") return { parts: ["[", ...first.parts, "]"], end: end + 1 };
    if (this.text[end] === "|") return this.options(first.parts, end, depth);
    if (this.text[end] !== ":") return null;
    const early = this.number(end + 1);
    if (early !== null) {
      return { parts: [{ before: [], after: first.parts, when: early.when }], end: early.end };
    }
    const second = this.prompt(end + 1, depth);
    if (this.text[second.end] !== ":") return null;
    const late = this.number(second.end + 1);
    if (late === null) return null;
    const part = { before: first.parts, after: second.parts, when: late.when };
    return { parts: [part], end: late.end };
  }

  private options(first: Part[], start: number, depth: number) {
    const options = [first];
    let end = start;
    while (this.text[end] === "|") {
      const next = this.prompt(end + 1, depth);
      options.push(next.parts);
      end = next.end;
    }
    return this.text[end] === "]" ? { parts: [{ options }], end: end + 1 } : null;
  }

  /** A number and the closing bracket. */
  private number(start: number): { when: string; end: number } | null {
    number.lastIndex = start;
    const match = number.exec(this.text);
    return match && { when: match[1]!, end: start + match[0].length };
  }
}

const plain = /(?:[^\\[\]():|]|\\[^\n])+/uy;
const number = /\s*([+-]?(?:\d+\.\d*|\.\d+|\d+)(?:e[+-]?\d+)?)\s*\]/iuy;

/** As Python's int(): without a point it is a step, whatever the exponent is. */
function stepOf(when: string, stepCount: number): number {
  const value = when.includes(".") ? Number(when) * stepCount : Number(when);
  return Math.min(stepCount, Math.trunc(value));
}

function collectEnds(parts: readonly Part[], stepCount: number, ends: Set<number>): void {
  for (const part of parts) {
    if (typeof part === "string") continue;
    if ("options" in part) {
      for (let step = 1; step <= stepCount; step++) ends.add(step);
      for (const option of part.options) collectEnds(option, stepCount, ends);
    } else {
      const step = stepOf(part.when, stepCount);
      if (step >= 1) ends.add(step);
      collectEnds(part.before, stepCount, ends);
      collectEnds(part.after, stepCount, ends);
    }
  }
}

function textAt(parts: readonly Part[], step: number, stepCount: number): string {
  return parts
    .map((part) => {
      if (typeof part === "string") return part;
      if ("options" in part) {
        return textAt(part.options[(step - 1) % part.options.length]!, step, stepCount);
      }
      const isBefore = step <= stepOf(part.when, stepCount);
      return textAt(isBefore ? part.before : part.after, step, stepCount);
    })
    .join("");
}
