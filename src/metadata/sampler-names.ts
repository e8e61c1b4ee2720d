/**
 * Samplers and schedules by the names of A1111, ComfyUI and their kin.
 */
import type { Scheduler } from "../settings/names.ts";
import { samplerRows } from "../settings/samplers.ts";
import type { SettingKey } from "../settings/table.ts";

/** How A1111 names the sampler and the spacing of its steps. */
export function a1111NameOf(
  name: Scheduler,
  value: (key: SettingKey) => unknown,
): { sampler: string; schedule: string } {
  return { sampler: samplerRows[name].others[0], schedule: scheduleOf(value) };
}

// --- internal ---

function scheduleOf(value: (key: SettingKey) => unknown): string {
  const sigmas = value("sigmas") ?? (value("useKarrasSigmas") ? "karras" : "normal");
  switch (sigmas) {
    case "karras":
      return "Karras";
    case "exponential":
      return "Exponential";
    case "beta":
      return "Beta";
    default:
      return value("timestepSpacing") === "trailing" ? "SGM Uniform" : "Automatic";
  }
}
