/**
 * Nearly right inputs: bytes, texts and JSON with random changes that know their structure.
 */
import type { Random } from "./random.ts";

/** One to five changes of bytes: flipped, cut, repeated, moved, or numbers at their edges. */
export function mutateBytes(random: Random, bytes: Uint8Array): Buffer {
  let changed: Buffer = Buffer.from(bytes);
  for (let count = 1 + random.below(5); count > 0; count--) changed = changeBytes(random, changed);
  return changed.subarray(0, lengthMax);
}

/** The same of a text, with pieces of its grammar put in. */
export function mutateText(random: Random, text: string, pieces: readonly string[]): string {
  let changed = text;
  for (let count = 1 + random.below(4); count > 0; count--) {
    const at = random.below(changed.length + 1);
    const [before, after] = [changed.slice(0, at), changed.slice(at)];
    const piece = random.once(4) ? random.pick(characters) : random.pick(pieces);
    const how = random.below(5);
    if (how === 0) changed = before + after.slice(1 + random.below(8));
    else if (how === 1) changed = before + piece.repeat(1 + random.below(3)) + after;
    else if (how === 2) changed = before + changed.slice(random.below(at + 1), at) + after;
    else if (how === 3 && random.once(20)) changed = before + piece.repeat(400) + after;
    else changed = before + piece + after;
  }
  return changed.slice(0, lengthMax);
}

/** JSON with values and keys exchanged, lost, repeated or nested; now and then broken as a text. */
export function mutateJson(random: Random, json: unknown, keys: readonly string[] = []): string {
  if (random.once(60)) return textOf(strange(random));
  const changed = copyOf(json);
  for (let count = 1 + random.below(3); count > 0; count--) changeJson(random, changed, keys);
  const text = textOf(changed);
  if (!random.once(8)) return text;
  return mutateText(random, text, ["{", "}", "[", "]", ",", ":", '"', "\\u0000", "[".repeat(600)]);
}

// --- internal ---

const lengthMax = 1 << 16;

const numbers = [0, -0, 1, 2, 3, 7, 8, 16, 1.5, -1, 255, 4096, 2 ** 31, 2 ** 53, 1e300, -1e300];
const strangeValues: readonly unknown[] = [
  ...[...numbers, null, true, false, "", "0", "-1", "1e400", "a".repeat(300), "../../etc/passwd"],
  ...["__proto__", "\u001b[2J\n", "\ud800", "\u202e", "NaN", [], {}, [[]], [null], [1, "a", {}]],
  ...[{ __proto__: null, a: 1 }, { length: 3 }, { toString: 1, valueOf: 1 }, Array(100).fill(1)],
];
const characters = [
  ...["\0", "\n", "\r", "\t", "\u001b[2J", "\u007f", "\u0085", "\u2028", "\u202e", "\ufeff"],
  ...["\ud800", "\udc00", "\u{1f98a}", "\u0130", "\u00df", "e\u0301", " ", "\\", '"', "'", "%00"],
];

/** A value that no field expects. */
function strange(random: Random): unknown {
  return copyOf(random.pick(strangeValues));
}

/** As a file holds it: 1e400 is read as infinity. */
function textOf(json: unknown): string {
  return JSON.stringify(json).replaceAll("1e+300", "1e400");
}

function changeBytes(random: Random, bytes: Buffer): Buffer {
  const at = random.below(bytes.length + 1);
  const [before, after] = [bytes.subarray(0, at), bytes.subarray(at)];
  const length = random.pick([1, 1, 2, 4, 8, 1 + random.below(64)]);
  switch (random.below(7)) {
    case 0:
      return Buffer.concat([before, after.subarray(length)]);
    case 1:
      return Buffer.concat([before, bytes.subarray(at, at + length), after]);
    case 2: {
      const random4 = Buffer.from(Array.from({ length }, () => random.below(256)));
      return Buffer.concat([before, random4, after.subarray(random.once(2) ? length : 0)]);
    }
    case 3: {
      const from = random.below(bytes.length + 1);
      return Buffer.concat([before, bytes.subarray(from, from + length), after.subarray(length)]);
    }
    case 4:
      return before.length > 0 && random.once(8) ? before : flipped(random, bytes);
    case 5:
      return Buffer.concat([before, edgeNumber(random), after.subarray(random.pick([0, 2, 4, 8]))]);
    default:
      return flipped(random, bytes);
  }
}

function flipped(random: Random, bytes: Buffer): Buffer {
  if (bytes.length === 0) return Buffer.of(random.below(256));
  const changed = Buffer.from(bytes);
  const at = random.below(changed.length);
  changed[at] = changed[at]! ^ (1 << random.below(8));
  return changed;
}

/** A length or offset at the edge of its type, in either order of bytes. */
function edgeNumber(random: Random): Buffer {
  const size = random.pick([2, 4, 8] as const);
  const bytes = Buffer.alloc(size);
  const value = random.pick([0n, 1n, 7n, 8n, 0x7fn, 0x80n, 0xffn, 0x7fffn, 0x7fffffffn, -1n, -2n]);
  for (let i = 0; i < size; i++) bytes[i] = Number((value >> BigInt(8 * i)) & 0xffn);
  return random.once(2) ? bytes : bytes.reverse();
}

function changeJson(random: Random, json: unknown, keys: readonly string[]): void {
  const places: Place[] = [];
  findPlaces(json, places);
  if (places.length === 0) return;
  const { parent, key } = random.pick(places);
  const other = random.pick(places);
  switch (random.below(7)) {
    case 0:
      if (Array.isArray(parent)) parent.splice(Number(key), 1);
      else delete parent[key];
      return;
    case 1:
      set(parent, key, copyOf(other.parent[other.key]));
      return;
    case 2:
      set(parent, random.pick([...keys, "unknown", "__proto__", key]), strange(random));
      return;
    case 3:
      set(parent, key, nested(random, parent[key]));
      return;
    default:
      set(parent, key, strange(random));
  }
}

/** "__proto__" too is a key like others, as JSON has it. */
function set(parent: Parent, key: string, value: unknown): void {
  if (key !== "__proto__") {
    parent[key] = value;
    return;
  }
  const how = { writable: true, enumerable: true, configurable: true };
  Object.defineProperty(parent, key, { value, ...how });
}

type Parent = Record<string, unknown>;

interface Place {
  parent: Parent;
  key: string;
}

/** Adds the places of all values in `json`, in their order. */
function findPlaces(json: unknown, places: Place[]): void {
  if (typeof json !== "object" || json === null) return;
  const parent = json as Parent;
  for (const key of Object.keys(parent)) {
    places.push({ parent, key });
    findPlaces(parent[key], places);
  }
}

/** A copy of JSON; faster than structuredClone, which took most of a case's time. */
function copyOf<T>(json: T): T {
  if (typeof json !== "object" || json === null) return json;
  if (Array.isArray(json)) return json.map(copyOf) as T;
  const copy: Parent = {};
  for (const key of Object.keys(json)) set(copy, key, copyOf((json as Parent)[key]));
  return copy as T;
}

function nested(random: Random, value: unknown): unknown {
  let result = value;
  for (let depth = random.pick([1, 2, 300]); depth > 0; depth--) {
    result = depth % 2 === 0 ? [result] : { a: result };
  }
  return result;
}
