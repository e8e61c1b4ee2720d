/**
 * The text of --xyz: axes with ";" between, `NAME=VALUE,VALUE`, and values as in A1111's X/Y/Z
 * plot: quotes around one that has a comma, and ranges of numbers, `1-5`, `1-10 (+3)`, `1-10 [5]`.
 */
import { badOption, escaped } from "../errors.ts";

/** An axis as it is written. */
interface AxisText {
  name: string;
  values: string[];
}

export function readAxisTexts(text: string): AxisText[] {
  return split(text, ";")
    .filter((part) => part.trim() !== "")
    .map((part) => {
      const equals = part.indexOf("=");
      if (equals < 1) {
        throw badOption(
          `--xyz ${shown(part)} is no axis: write NAME=VALUE,VALUE, such as steps=10,20.`,
        );
      }
      const name = part.slice(0, equals).trim();
      const values = split(part.slice(equals + 1), ",").map(unquoted);
      if (values.some((value) => value === "")) {
        throw badOption(`--xyz ${shown(name)} has an empty value; "" stands for an empty text.`);
      }
      return { name, values: values.map((value) => (value === '""' ? "" : value)) };
    });
}

/** The numbers that a value stands for: those of a range, else the value itself. */
export function expandRange(value: string, isWhole: boolean): string[] {
  const number = isWhole ? "[+-]?\\d+" : "[+-]?(?:\\d+\\.?\\d*|\\.\\d+)";
  const range = new RegExp(`^(${number})\\s*-\\s*(${number})(.*)$`).exec(value);
  if (range === null) return [value];
  const [, from, to, rest] = range as unknown as [string, string, string, string];
  const step = new RegExp(`^\\s*\\(\\s*(${number})\\s*\\)\\s*$`).exec(rest)?.[1];
  const count = /^\s*\[\s*(\d+)\s*\]\s*$/.exec(rest)?.[1];
  if (step === undefined && count === undefined && rest.trim() !== "") return [value];
  const numbers = isWhole
    ? wholeNumbers(BigInt(from), BigInt(to), { step, count })
    : fractions(Number(from), Number(to), { step, count });
  if (numbers.length === 0) throw badOption(`--xyz has the range ${shown(value)}, which is empty.`);
  return numbers;
}

// --- internal ---

/** More cannot be shown on an axis. */
const valueCountMax = 1000;

interface RangeSteps {
  step: string | undefined;
  count: string | undefined;
}

/** Exact at any size: seeds have up to 63 bits. */
function wholeNumbers(from: bigint, to: bigint, { step, count }: RangeSteps): string[] {
  if (count !== undefined) {
    // Both ends included, as numpy's linspace, and cut, as A1111 does.
    const gaps = BigInt(Math.max(1, Number(count) - 1));
    return listed(Number(count), (i) => (from * gaps + (to - from) * BigInt(i)) / gaps);
  }
  const by = BigInt(step ?? 1);
  const isEmpty = by === 0n || (by > 0n ? to < from : to > from);
  return listed(isEmpty ? 0 : Number((to - from) / by) + 1, (i) => from + BigInt(i) * by);
}

function fractions(from: number, to: number, { step, count }: RangeSteps): string[] {
  // Ten digits hide what binary fractions add.
  const rounded = (value: number) => Number(value.toPrecision(10));
  if (count !== undefined) {
    const gap = Number(count) > 1 ? (to - from) / (Number(count) - 1) : 0;
    return listed(Number(count), (i) => rounded(from + i * gap));
  }
  const by = Number(step ?? 1);
  const steps = by === 0 ? 0 : Math.floor((to - from) / by + 1e-9) + 1;
  return listed(steps, (i) => rounded(from + i * by));
}

/** None for a count below 1. */
function listed(count: number, at: (index: number) => number | bigint): string[] {
  if (count > valueCountMax) throw badOption(`--xyz has a range of ${count} values.`);
  return Array.from({ length: Math.max(0, count) }, (_, i) => String(at(i)));
}

/** Parts between the marks that are outside of quotes. */
function split(text: string, mark: string): string[] {
  const parts: string[] = [];
  let start = 0;
  let isQuoted = false;
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '"') isQuoted = !isQuoted;
    if (text[i] !== mark || isQuoted) continue;
    parts.push(text.slice(start, i));
    start = i + 1;
  }
  if (isQuoted) throw badOption(`--xyz has a quote that does not end: ${shown(text)}.`);
  return [...parts, text.slice(start)];
}

/** Without quotes around it; `""` inside is one, and alone an empty text, which stays. */
function unquoted(text: string): string {
  const plain = text.trim();
  if (plain === '""' || !/^".*"$/s.test(plain)) return plain;
  return plain.slice(1, -1).replaceAll('""', '"');
}

function shown(text: string): string {
  return JSON.stringify(escaped(text, 80));
}
