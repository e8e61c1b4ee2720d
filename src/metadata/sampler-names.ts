/**
 * Samplers and schedules by the names of A1111, ComfyUI and their kin.
 */
import type { Scheduler } from "../settings/names.ts";
import type { SettingKey } from "../settings/table.ts";

/** How A1111 names the sampler and the spacing of its steps. */
export function a1111NameOf(
  name: Scheduler,
  value: (key: SettingKey) => unknown,
): { sampler: string; schedule: string } {
  const isTrailing = value("timestepSpacing") === "trailing";
  const schedule = value("useKarrasSigmas") ? "Karras" : isTrailing ? "SGM Uniform" : "Automatic";
  return { sampler: names[name] ?? name, schedule };
}

// --- internal ---

const names: Readonly<Partial<Record<string, string>>> = {
  euler: "Euler",
  euler_a: "Euler a",
  ddim: "DDIM",
};
