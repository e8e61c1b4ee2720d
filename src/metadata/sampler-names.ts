/**
 * The sampler and the spacing of its steps by the names of A1111.
 */
import type { Scheduler, SigmaKind } from "../settings/names.ts";
import { automaticSigmas, samplerRows } from "../settings/samplers.ts";
import type { SettingKey } from "../settings/table.ts";

/** `own` is the model's spacing of noise levels, where no setting says otherwise. */
export function a1111NameOf(
  name: Scheduler,
  value: (key: SettingKey) => unknown,
  own: SigmaKind,
): { sampler: string; schedule: string } {
  const isKarras = value("useKarrasSigmas") ?? own === "karras";
  const sigmas = value("sigmas") ?? (isKarras ? "karras" : own === "karras" ? "normal" : own);
  const isTrailing = value("timestepSpacing") === "trailing";
  const normal = automaticSigmas(name) === "normal" ? "Automatic" : "Uniform";
  const schedule = names[String(sigmas)] ?? (isTrailing ? "SGM Uniform" : normal);
  return { sampler: samplerRows[name].others[0], schedule };
}

// --- internal ---

const names: Readonly<Partial<Record<string, string>>> = {
  karras: "Karras",
  exponential: "Exponential",
  beta: "Beta",
  beta_timesteps: "Beta",
  sgm_uniform: "SGM Uniform",
  simple: "Simple",
  ddim_uniform: "DDIM",
  kl_optimal: "KL Optimal",
  ays: "Align Your Steps",
};
