/**
 * Reads one key at a time from a model's JSON files, so that every problem is one sentence with the
 * file and the key in it.
 */
import * as v from "valibot";
import { BasedXLError, escaped } from "../errors.ts";

/** As `level_count_max` in zig/model/config.zig. */
const levelCountMax = 8;

const wholeFrom = (min: number, max: number) => {
  const message = `it must be a whole number from ${min} to ${max}`;
  return v.pipe(
    v.number(message),
    v.integer(message),
    v.minValue(min, message),
    v.maxValue(max, message),
  );
};

/** Sizes and counts: the limit keeps every product of two of them an exact number. */
export const positiveInteger = wholeFrom(1, 2 ** 24);
export const wholeNumber = wholeFrom(0, 2 ** 24);
const numberMessage = "it must be a number";
/** May be infinite. */
export const aNumber = v.number(numberMessage);
export const finiteNumber = v.pipe(aNumber, v.finite(numberMessage));
/** More than 0 and finite also in f32, which is what the native library and the schedules keep. */
export const positiveNumber = v.pipe(
  finiteNumber,
  v.gtValue(0, "it must be more than 0"),
  v.check((value) => {
    const rounded = Math.fround(value);
    return rounded > 0 && rounded < Number.POSITIVE_INFINITY;
  }, "it must be a number that 32 bits can hold"),
);
export const flag = v.boolean("it must be true or false");
export const text = v.string("it must be text");

/** One of a few words. */
export function oneOf<const Words extends readonly string[]>(words: Words) {
  return v.picklist(words, `it must be one of ${words.map(show).join(", ")}`);
}

/** A list of what `item` describes. */
export function listOf<Item extends v.GenericSchema>(item: Item) {
  return v.array(item, "it must be a list");
}

const componentEntry = v.strictTuple(
  [v.nullable(text), v.nullable(text)],
  "it must be a library and a class",
);

/** The keys of one JSON object that came from the file `path`. */
export class ConfigReader {
  private readonly entries: Record<string, unknown>;

  constructor(
    readonly path: string,
    json: unknown,
  ) {
    if (json === null || typeof json !== "object" || Array.isArray(json)) {
      throw new BasedXLError("bad-model", `${path} must hold a JSON object, with keys and values.`);
    }
    const entries = json as Record<string, unknown>;
    // Keys that were no more than the saving class' defaults: the loading class' own hold.
    const defaults = entries._use_default_values;
    const unset = new Set(Array.isArray(defaults) ? defaults : []);
    this.entries = Object.fromEntries(Object.entries(entries).filter(([key]) => !unset.has(key)));
  }

  /** A switch: null is false, as in Python, and `fallback` holds when the file leaves it out. */
  isOn<Fallback>(key: string, fallback: Fallback): boolean | Fallback {
    if (this.entries[key] === null) return false;
    return this.optional(key, flag, fallback);
  }

  /**
   * The value of `key`, or `fallback` when the file leaves it out. A null is the fallback only
   * where that is null or undefined: diffusers takes it as the value, not its default.
   */
  optional<Schema extends v.GenericSchema, Fallback>(
    key: string,
    schema: Schema,
    fallback: Fallback,
  ): v.InferOutput<Schema> | Fallback {
    const value = this.entries[key];
    if (value === undefined) return fallback;
    if (value === null) {
      if (fallback === null || fallback === undefined) return fallback;
      return this.fail(`${word(key)} is null, which is not supported`);
    }
    const result = v.safeParse(schema, value);
    if (result.success) return result.output;
    const why = escaped(result.issues[0].message, 200);
    // Names of added tokens are keys, too.
    return this.fail(`${word(key)} is ${show(value)}, but ${why}`);
  }

  keys(): string[] {
    return Object.keys(this.entries);
  }

  isText(key: string): boolean {
    return typeof this.entries[key] === "string";
  }

  /** The value of `key`, which the file must have. */
  required<Schema extends v.GenericSchema>(key: string, schema: Schema): v.InferOutput<Schema> {
    const value = this.optional(key, schema, undefined);
    return value === undefined ? this.fail(`${word(key)} is missing`) : value;
  }

  /** Refuses the file unless `key` is absent or one of `supported`. */
  refuseUnless(key: string, supported: readonly unknown[]): void {
    const value = this.entries[key];
    if (value === undefined || value === null || supported.includes(value)) return;
    const known = supported.map(show).join(" or ") || "null";
    this.fail(`${key} is ${show(value)}, which is not supported; ${known} is`);
  }

  /** Refuses another activation than SiLU, which diffusers knows by two names in any case. */
  checkSilu(): void {
    const name = this.optional("act_fn", text, "silu");
    if (["silu", "swish"].includes(name.toLowerCase())) return;
    this.fail(`act_fn is ${show(name)}, which is not supported; "silu" or "swish" is`);
  }

  /** Refuses weights that are packed in a way of their own. */
  refuseQuantized(): void {
    this.refuseUnless("quantization_config", []);
  }

  /** Refuses a `block_out_channels` with more levels than the native library has room for. */
  checkLevels(count: number): void {
    if (count >= 1 && count <= levelCountMax) return;
    this.fail(`block_out_channels has ${count} levels, but 1 to ${levelCountMax} are supported`);
  }

  /** Whether the file has `key` as null, which is not the same as without it. */
  isNull(key: string): boolean {
    return this.entries[key] === null;
  }

  /** Refuses the file when `key` is null, where diffusers makes null mean something of its own. */
  refuseNull(key: string): void {
    if (this.entries[key] === null) this.fail(`${key} is null, which is not supported`);
  }

  /** A number, or a list of `count` numbers, as a list of `count`. */
  perLevel(key: string, schema: v.GenericSchema<number>, fallback: number, count: number) {
    const either = v.union([schema, listOf(schema)], `it must be a number, or one for each level`);
    const value = this.optional(key, either, fallback);
    const list = typeof value === "number" ? new Array<number>(count).fill(value) : value;
    if (list.length === count) return list;
    return this.fail(`${key} has ${list.length} entries, but there are ${count} levels`);
  }

  /**
   * The class that a model_index.json names for `component`, as ["library", "Class"]; null where it
   * names none. Refuses a class of another library than `library`: code of its own, under a name
   * that may be known. Refuses other classes than `supported`, where these are given.
   */
  componentClass(component: string, library: string, supported?: readonly string[]): string | null {
    const [origin, name] = this.optional(component, componentEntry, null) ?? [];
    if (name === undefined || name === null) return null;
    if (origin !== library) {
      const found = `${component} is a ${word(name)} of ${show(origin)}`;
      return this.fail(`${found}, which is not supported; that of ${library} is`);
    }
    if (!supported || supported.includes(name)) return name;
    const known = supported.join(" or ");
    return this.fail(`${component} is a ${word(name)}, which is not supported; ${known} is`);
  }

  /** Whether a model_index.json leaves `component` out on purpose: [null, null]. */
  isEmptyComponent(component: string): boolean {
    const value = this.entries[component];
    return Array.isArray(value) && value.every((word) => word === null);
  }

  /** Refuses a model_index.json with one of `components` left out on purpose. */
  refuseEmptyComponents(components: readonly string[]): void {
    const empty = components.find((component) => this.isEmptyComponent(component));
    if (empty) this.fail(`the model has no ${empty}, which is not supported`);
  }

  /** The key "weight_map" of a shard index: tensor name to file name. */
  weightMap(): Record<string, string> {
    return this.required("weight_map", v.record(v.string(), text, "it must be a table"));
  }

  /** Throws "bad-model" with the file's name before `problem`. */
  fail(problem: string): never {
    throw new BasedXLError("bad-model", `${this.path}: ${problem}.`);
  }
}

/** A word of a file as it stands, escaped and cut to a readable length. */
export function word(text: string): string {
  return escaped(text, 60);
}

/** A value as it would stand in the file, escaped and cut to a readable length. */
export function show(value: unknown): string {
  const text = typeof value === "number" ? `${value}` : (JSON.stringify(value) ?? `${value}`);
  return escaped(text.length > 60 ? `${text.slice(0, 57)}...` : text);
}
