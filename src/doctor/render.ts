/**
 * Renders the report as text: one line per fact. Problems are red, with their advice below.
 */
import { escaped } from "../errors.ts";
import { wrap } from "../terminal/help.ts";
import { type Line, problemsOf, type Report } from "./report.ts";

const marks = { ok: "ok", note: "-", problem: "BAD" } as const;
const colours = { ok: "\x1b[32m", note: "\x1b[2m", problem: "\x1b[31m" } as const;
const lineWidth = 100;
const textColumn = 20;

/** The text, with a final line break. `colour`: with escape sequences, for terminals. */
export function renderReport(report: Report, colour: boolean): string {
  const paint = (text: string, state: Line["state"]) =>
    colour ? `${colours[state]}${text}\x1b[0m` : text;
  const lines: string[] = [];
  for (const { title, lines: facts } of Object.values(report)) {
    lines.push(title);
    for (const line of facts) lines.push(...linesOf(line, paint));
  }
  const { length } = problemsOf(report);
  const last = length === 1 ? "1 problem" : `${length} problems`;
  lines.push("", length === 0 ? "No problems found." : `${last}: the arrows (->) give advice.`);
  return `${lines.join("\n")}\n`;
}

// --- internal ---

type Paint = (text: string, state: Line["state"]) => string;

function linesOf(line: Line, paint: Paint): string[] {
  const head = `  ${marks[line.state].padEnd(4)} ${escaped(line.label).padEnd(textColumn - 8)} `;
  const indent = " ".repeat(textColumn);
  const [first = "", ...rest] = wrap(escaped(line.text), lineWidth - textColumn);
  const text = [head.padEnd(textColumn) + first, ...rest.map((each) => indent + each)];
  if (line.state !== "problem") {
    return text.map((each, index) => (index === 0 ? paintMark(each, line.state, paint) : each));
  }
  const advice = wrap(escaped(line.advice), lineWidth - textColumn - 3);
  const arrow = advice.map((each, index) => `${indent}${index === 0 ? "-> " : "   "}${each}`);
  return [...text.map((each) => paint(each, "problem")), ...arrow];
}

function paintMark(text: string, state: Line["state"], paint: Paint): string {
  return `  ${paint(text.slice(2, 6), state)}${text.slice(6)}`;
}
