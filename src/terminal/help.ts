/**
 * Help texts from citty definitions, grouped and wrapped to 80 columns. Defaults and ranges belong
 * in each flag's description: citty's defaults are not used, so that an absent flag stays absent.
 * A flag that is on unless switched off has a `negativeDescription` and is shown as --no-NAME.
 */
import type { ArgsDef } from "citty";
import { aliasesOf } from "./flags.ts";

export interface HelpText {
  usage: string;
  /** One sentence or two under the usage line. */
  summary: string;
  examples: readonly string[];
  /** Headings with the names of their flags; every flag of `args` belongs to one of them. */
  groups: readonly (readonly [heading: string, flags: readonly string[]])[];
  /** Lines after the flags. */
  notes: readonly string[];
}

const lineWidth = 80;
const textColumn = 27;

/** The whole help of one command, ending in a line break. Examples come first. */
export function renderHelp(help: HelpText, args: ArgsDef): string {
  const lines = [`Usage: ${help.usage}`, "", ...wrap(help.summary, lineWidth), "", "Examples:"];
  for (const example of help.examples) lines.push(`  ${example}`);
  for (const [heading, flags] of help.groups) {
    lines.push("", `${heading}:`);
    for (const flag of flags) lines.push(...flagLines(flag, args));
  }
  for (const note of help.notes) lines.push("", ...wrap(note, lineWidth));
  return `${lines.join("\n")}\n`;
}

/**
 * Breaks a text at spaces into lines of at most `width` columns; longer words stay whole, and a
 * line break of the text stays one.
 */
export function wrap(text: string, width: number): string[] {
  return text.split("\n").flatMap((paragraph) => wrapParagraph(paragraph, width));
}

// --- internal ---

function wrapParagraph(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}

function flagLines(name: string, args: ArgsDef): string[] {
  const arg = args[name];
  const hint = arg?.valueHint ? ` ${arg.valueHint}` : "";
  const negative = arg?.type === "boolean" ? arg.negativeDescription : undefined;
  const prefix = negative === undefined ? "--" : "--no-";
  const names = [name, ...aliasesOf(arg)].map((each) => prefix + each).join(", ");
  const head = arg?.type === "positional" ? `  [${arg.valueHint ?? name}]` : `  ${names}${hint}`;
  const [first = "", ...rest] = wrap(negative ?? arg?.description ?? "", lineWidth - textColumn);
  const indent = " ".repeat(textColumn);
  const body = rest.map((line) => indent + line);
  if (head.length + 2 > textColumn) return [head, indent + first, ...body];
  return [head.padEnd(textColumn) + first, ...body];
}
