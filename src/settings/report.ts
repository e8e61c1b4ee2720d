/**
 * Settings in the output of `--json`.
 */
import { type ResolvedSettings, settingKeys, settingOf } from "./table.ts";

/** What `--json` reports, by the keys of the table; null for what is undefined. */
export function reportOf(values: ResolvedSettings): Record<string, unknown> {
  const reported = settingKeys.flatMap((key) => {
    const { json } = settingOf(key);
    const value = values[key] ?? null;
    // Seeds do not fit JSON's numbers.
    const shown = typeof value === "bigint" ? String(value) : value;
    return json === null ? [] : [[json, shown]];
  });
  return Object.fromEntries(reported);
}
