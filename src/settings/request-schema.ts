/**
 * The settings of a request as a server reads them from JSON: the names of the flags with `_` for
 * `-` (the aliases too), the ranges and sentences of the table.
 */
import * as v from "valibot";
import { suggestion } from "../terminal/flags.ts";
import type { Setting } from "./setting.ts";
import { isImageKey, type RequestSettings, requestKeys, settingOf } from "./table.ts";
import { asField, demandOf } from "./values.ts";

/** Images come to a server in another way than by their paths on its disk. */
export const fieldKeys = requestKeys.filter((key) => !isImageKey(key));
/** Their names, once: every request is read by them. */
const fields = fieldKeys.map((key) => [key, asField(key)] as const);

/** Gives `RequestSettings`; whole numbers of 64 bits may come as texts of digits. */
export const requestSchema: v.GenericSchema<unknown, RequestSettings> = v.pipe(
  v.unknown(),
  v.check((input) => !Array.isArray(input), "A request must be an object, not an array."),
  v.strictObject(
    Object.fromEntries(fields.map(([key, name]) => [name, v.optional(fieldSchema(key))])),
    ({ expected, received }) =>
      expected === "never"
        ? `There is no setting ${received}.${suggested(received)}`
        : `A request must be an object, not ${received}.`,
  ),
  v.transform((values) =>
    Object.fromEntries(
      fields
        .filter(([, name]) => values[name] !== undefined)
        .map(([key, name]) => [key, values[name]]),
    ),
  ),
) as unknown as v.GenericSchema<unknown, RequestSettings>;

/** What `requestSchema` reads as `request`, in values of JSON. */
export function requestToJson(request: RequestSettings): Record<string, unknown> {
  const values: Readonly<Record<string, unknown>> = request;
  const given = requestKeys.filter((key) => values[key] !== undefined);
  return Object.fromEntries(given.map((key) => [asField(key), toJson(key, values[key])]));
}

// --- internal ---

/** By the other names of its flag too; `name` is in quotes. */
function suggested(name: string): string {
  const bare = name.replace(/^"|"$/g, "");
  const alias = bare.replaceAll("_", "-");
  const meant = fields.find(([key]) => settingOf(key).aliases?.includes(alias))?.[1];
  return suggestion(meant ?? bare, meant ? [meant] : fields.map(([, field]) => field));
}

function toJson(key: (typeof requestKeys)[number], value: unknown): unknown {
  const setting = settingOf(key);
  if (typeof value === "bigint") return String(value);
  if (setting.kind !== "list") return value;
  return (value as readonly unknown[]).map((item) => setting.of.format(item));
}

function fieldSchema(key: (typeof requestKeys)[number]): v.GenericSchema<unknown, unknown> {
  const setting = settingOf(key);
  return v.pipe(
    v.unknown(),
    v.transform((value) => fromJson(setting, value)),
    v.check(
      (value) => demandOf(setting, value) === null,
      ({ input }) => {
        const shown = typeof input === "bigint" ? String(input) : JSON.stringify(input);
        return `${asField(key)} ${demandOf(setting, input)}, not ${shown}.`;
      },
    ),
  );
}

/** A JSON number holds 53 bits: larger seeds are texts. */
function fromJson(setting: Setting, value: unknown): unknown {
  if (setting.kind === "list") {
    return Array.isArray(value) ? value.map((each) => setting.of.fromJson(each)) : value;
  }
  if (setting.kind !== "seed") return value;
  if (typeof value === "string" && /^\d{1,30}$/.test(value)) return BigInt(value);
  return Number.isSafeInteger(value) ? BigInt(value as number) : value;
}
