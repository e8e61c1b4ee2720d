/**
 * The text that A1111 writes into images: the prompt, the negative prompt behind a mark, and fields
 * on the last line. Sites and programs read it by the same rules as here.
 * Source: modules/infotext_utils.py (quote, parse_generation_parameters) and modules/processing.py
 * (create_infotext) of AUTOMATIC1111 and Forge.
 */

interface Infotext {
  prompt: string;
  negativePrompt: string;
  /** In order. */
  fields: readonly (readonly [name: string, value: string])[];
}

/** The text, as create_infotext builds it. */
export function writeInfotext({ prompt, negativePrompt, fields }: Infotext): string {
  const negative = negativePrompt === "" ? "" : `\n${negativeMark} ${negativePrompt}`;
  const line = fields.map(([name, value]) => {
    return name === value ? name : `${name}: ${quoted(value)}`;
  });
  return `${prompt}${negative}\n${line.join(", ")}`.trim();
}

/** The parts of a text; without a line of fields, all of it is the prompt. */
export function parseInfotext(text: string): Infotext {
  const lines = text.trim().split(/\r?\n/);
  const last = fieldsIn(lines.at(-1)!);
  const fields = last.length < fieldCountMin ? [] : last;
  if (fields.length > 0) lines.pop();
  const prompt: string[] = [];
  const negative: string[] = [];
  let into = prompt;
  for (const line of lines.map((each) => each.trim())) {
    const isMarked = line.startsWith(negativeMark);
    if (isMarked) into = negative;
    into.push(isMarked ? line.slice(negativeMark.length).trim() : line);
  }
  // Lines before the first that has something are lost, as A1111 joins them.
  const join = (parts: string[]) => parts.join("\n").replace(/^\n+/, "");
  return { prompt: join(prompt), negativePrompt: join(negative), fields };
}

/** Whether the last line looks like fields, as readers decide it. */
export function isInfotext(text: string): boolean {
  return parseInfotext(text).fields.length > 0;
}

// --- internal ---

const negativeMark = "Negative prompt:";
/** Fewer on the last line, and it belongs to the prompt. */
const fieldCountMin = 3;

function quoted(value: string): string {
  return /[,\n:]/.test(value) ? JSON.stringify(value) : value;
}

function unquoted(value: string): string {
  if (value.length < 2 || !value.startsWith('"') || !value.endsWith('"')) return value;
  try {
    const text: unknown = JSON.parse(value);
    return typeof text === "string" ? text : value;
  } catch {
    return value;
  }
}

/**
 * What A1111's expression `\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)` finds in a line,
 * in time that grows with the line's length and not with its square.
 */
function fieldsIn(line: string): [string, string][] {
  const fields: [string, string][] = [];
  const name = /[\p{L}\p{N}_ \-/]+/uy;
  const value = /\s*("(?:\\.|[^\\"])+"(?=,|$)|[^,]*)/uy;
  for (let at = 0; at < line.length; ) {
    name.lastIndex = at;
    const [run] = name.exec(line) ?? [];
    if (run === undefined) {
      at++;
      continue;
    }
    at += run.length;
    const begin = run.search(/[\p{L}\p{N}_]/u);
    if (line[at] !== ":" || begin < 0 || run.length - begin < 2) continue;
    value.lastIndex = at + 1;
    const [whole = "", found = ""] = value.exec(line) ?? [];
    fields.push([run.slice(begin), unquoted(found)]);
    at += 1 + whole.length + 1;
  }
  return fields;
}
