/**
 * Values of settings from texts (flags, environment) and from JavaScript or JSON (the API, a
 * request): one check and one sentence for both, by whatever name the user knows the setting.
 */
import { BasedXLError, escaped } from "../errors.ts";
import { listSeparator, suggestion } from "../terminal/flags.ts";
import { type AnySetting, type NumberList, seedMax } from "./setting.ts";
import { type GivenSettings, type SettingKey, settingOf } from "./table.ts";

/** How messages name a setting. */
export type Naming = (key: SettingKey) => string;

/** `--num-inference-steps (--steps)` */
export function asFlag(key: SettingKey): string {
  const { flag, aliases = [] } = settingOf(key);
  if (aliases.length === 0) return `--${flag}`;
  return `--${flag} (${aliases.map((alias) => `--${alias}`).join(", ")})`;
}

/** `num_inference_steps`, as a request in JSON names it. */
export function asField(key: SettingKey): string {
  return settingOf(key).flag.replaceAll("-", "_");
}

/** `stepCount`, as the API names it. */
export function asProperty(key: SettingKey): string {
  return key;
}

/** The value of a flag's text. Throws "bad-option" with what it must be. */
export function parseSetting<Key extends SettingKey>(
  key: Key,
  text: string,
  naming: Naming = asFlag,
): NonNullable<GivenSettings[Key]> {
  const setting = settingOf(key);
  const value = readText(setting, text);
  const shown = text.split(listSeparator).map((each) => escaped(JSON.stringify(each), 300));
  return checked(key, value, shown.join(", "), naming) as NonNullable<GivenSettings[Key]>;
}

/** The same for a value that has its type already, or should have. */
export function checkSetting<Key extends SettingKey>(
  key: Key,
  value: unknown,
  naming: Naming = asProperty,
): NonNullable<GivenSettings[Key]> {
  const isPlain = typeof value === "bigint" || typeof value === "number";
  const shown = isPlain ? String(value) : escaped(JSON.stringify(value) ?? "undefined", 300);
  return checked(key, value, shown, naming) as NonNullable<GivenSettings[Key]>;
}

/** A text that `parseSetting` reads as `value`. */
export function formatSetting<Key extends SettingKey>(
  key: Key,
  value: NonNullable<GivenSettings[Key]>,
): string {
  const setting = settingOf(key);
  if (setting.kind !== "list") return String(value);
  return (value as readonly unknown[]).map(setting.of.format).join(listSeparator);
}

/** Why a value is refused, as in "must be a whole number from 1 to 16"; null where it is not. */
export function demandOf(setting: AnySetting, value: unknown): string | null {
  return accepts(setting, value) ? null : `must ${demand(setting)}`;
}

/**
 * The value that a text means; NaN or the text itself where it cannot be read, which `demandOf`
 * refuses.
 */
export function readText(setting: AnySetting, text: string): unknown {
  switch (setting.kind) {
    case "whole":
      if (setting.orAuto && text === "auto") return text;
      return /^[+-]?\d+$/.test(text) ? Number(text) : Number.NaN;
    case "number":
      return readNumber(text);
    case "numbers":
      return text.split(",").map(readNumber);
    case "choice":
      return setting.orNumbers && text.includes(",") ? text.split(",").map(readNumber) : text;
    case "seed":
      return /^\+?\d{1,30}$/.test(text) ? BigInt(text.replace("+", "")) : -1n;
    case "boolean":
      return text === "true" ? true : text === "false" ? false : text;
    case "list":
      return text.split(listSeparator).map(setting.of.read);
    default:
      return text;
  }
}

// --- internal ---

function checked(key: SettingKey, value: unknown, shown: string, naming: Naming): unknown {
  const setting = settingOf(key);
  const why = demandOf(setting, value);
  if (why === null) return value;
  const isName = setting.kind === "choice" && typeof value === "string";
  const hint = isName ? suggestion(value, setting.names) : "";
  throw new BasedXLError("bad-option", `${naming(key)} ${why}, not ${shown}.${hint}`);
}

function readNumber(text: string): number {
  const plain = text.trim();
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain) ? Number(plain) : Number.NaN;
}

function accepts(setting: AnySetting, value: unknown): boolean {
  switch (setting.kind) {
    case "whole":
      if (setting.orAuto && value === "auto") return true;
      return Number.isInteger(value) && isWithin(setting, value);
    case "number":
      return typeof value === "number" && isWithin(setting, value);
    case "seed":
      return typeof value === "bigint" && value >= 0n && value <= seedMax;
    case "boolean":
      return typeof value === "boolean";
    case "numbers":
      return isFalling(setting, value);
    case "choice":
      if (setting.orNumbers && isFalling(setting.orNumbers, value)) return true;
      if (typeof value !== "string") return false;
      return setting.names.includes(value) || setting.alsoAccepts?.(value) === true;
    case "text":
      return typeof value === "string";
    case "path":
      return typeof value === "string" && value.toLowerCase().endsWith(setting.extension ?? "");
    case "list":
      return Array.isArray(value) && value.length <= setting.max && value.every(setting.of.accepts);
  }
}

function isWithin({ min, max }: { min: number; max: number }, value: unknown): boolean {
  return typeof value === "number" && value >= min && value <= max;
}

function isFalling(list: NumberList, value: unknown): boolean {
  if (!Array.isArray(value)) return false;
  const { whole, countMin, countMax } = list;
  return (
    value.length >= countMin &&
    value.length <= countMax &&
    value.every((each) => isWithin(list, each) && (!whole || Number.isInteger(each))) &&
    value.every((each, i) => i === 0 || each < value[i - 1])
  );
}

function demandOfList({ whole, min, max, countMin, countMax }: NumberList): string {
  const kind = whole ? "whole numbers" : "numbers";
  return `${countMin} to ${countMax} falling ${kind} from ${min} to ${max}, with commas between \
them`;
}

function demand(setting: AnySetting): string {
  switch (setting.kind) {
    case "whole":
      return `be ${setting.orAuto ? "auto or " : ""}a whole number from ${setting.min} to ${
        setting.max
      }`;
    case "number":
      return `be a number from ${setting.min} to ${setting.max}`;
    case "seed":
      return `be a whole number from 0 to ${seedMax} (2^63-1)`;
    case "boolean":
      return "be true or false";
    case "numbers":
      return `be ${demandOfList(setting)}`;
    case "choice": {
      const names = `${setting.names.slice(0, -1).join(", ")} or ${setting.names.at(-1)}`;
      return `be ${names}${setting.orNumbers ? `, or ${demandOfList(setting.orNumbers)}` : ""}`;
    }
    case "text":
      return "be a text";
    case "list":
      return `${setting.of.demand} (at most ${setting.max} of them)`;
    case "path":
      return setting.extension === undefined
        ? `be the path of a ${setting.names}`
        : `name a ${setting.extension} file`;
  }
}
