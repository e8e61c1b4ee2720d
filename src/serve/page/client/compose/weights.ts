/**
 * Weights of parts of a prompt, changed by keys: `(text:1.1)` in A1111's syntax. Pure functions of
 * the text and the selection, so that the text box only applies what they return.
 */

interface Selection {
  text: string;
  start: number;
  end: number;
}

/**
 * The selection, the group around it, or the word at the caret with its weight changed by `by`.
 * A weight of 1 loses its brackets. null where there is no word.
 */
export function changeWeight(from: Selection, by: number): Selection | null {
  return changeLora(from, by) ?? changeGroup(from, by) ?? wrap(from, by);
}

/** Whether a text has weights, which only prompts in A1111's or ComfyUI's syntax have. */
export function hasWeights(text: string): boolean {
  return text.search(weighted) >= 0;
}

// --- internal ---

const weightMax = 10;
/** `(words:1.2)` without brackets inside. */
const weighted = /(?<!\\)\(([^()]*):\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)/g;

/** `<lora:name:0.8>` around the caret: its scale is the weight. */
function changeLora({ text, start, end }: Selection, by: number): Selection | null {
  for (const match of text.matchAll(/<(lora|lyco):([^:<>]+)(?::([^<>]*))?>/gi)) {
    const from = match.index;
    const to = from + match[0].length;
    if (start < from || end > to) continue;
    const [, kind = "", name = "", scales = "1"] = match;
    const all = scales.split(":");
    const last = Number(all.pop());
    if (!Number.isFinite(last)) return null;
    all.push(shown(last + by));
    const tag = `<${kind}:${name}:${all.join(":")}>`;
    return replaced(text, from, to, tag, from, from + tag.length);
  }
  return null;
}

/** `(words:1.2)` whose words the selection lies in, the innermost one. */
function changeGroup({ text, start, end }: Selection, by: number): Selection | null {
  const groups = [...text.matchAll(weighted)];
  const group = groups.find(({ index, 0: all }) => start >= index && end <= index + all.length);
  if (group === undefined) return null;
  const [all, words = "", weight = ""] = group;
  const to = group.index + all.length;
  const changed = Math.min(weightMax, Math.max(0, Number(weight) + by));
  if (shown(changed) === "1") {
    return replaced(text, group.index, to, words, group.index, group.index + words.length);
  }
  const first = group.index + 1;
  const whole = `(${words}:${shown(changed)})`;
  return replaced(text, group.index, to, whole, first, first + words.length);
}

function wrap(selection: Selection, by: number): Selection | null {
  const { text } = selection;
  const [start, end] = wordsOf(selection);
  if (start === end) return null;
  const words = text.slice(start, end);
  const whole = `(${words}:${shown(1 + by)})`;
  return replaced(text, start, end, whole, start + 1, start + 1 + words.length);
}

/** The selection without spaces at its ends, or the word around the caret. */
function wordsOf({ text, start, end }: Selection): [number, number] {
  if (start !== end) {
    while (start < end && isSpace(text[start]!)) start++;
    while (end > start && isSpace(text[end - 1]!)) end--;
    return [start, end];
  }
  const isPart = (at: number) =>
    at >= 0 && at < text.length && !/[\s,.;:()[\]{}<>|]/.test(text[at]!);
  while (isPart(start - 1)) start--;
  while (isPart(end)) end++;
  return [start, end];
}

function isSpace(letter: string): boolean {
  return /[\s,]/.test(letter);
}

function replaced(
  text: string,
  from: number,
  to: number,
  by: string,
  start: number,
  end: number,
): Selection {
  return { text: text.slice(0, from) + by + text.slice(to), start, end };
}

/** Two decimals at most, without zeros behind. */
function shown(value: number): string {
  return String(Math.round(value * 100) / 100);
}
