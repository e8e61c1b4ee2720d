/**
 * The factor of an adapter's change beside the user's: alpha / rank. Alpha is a tensor of the file
 * (kohya, LyCORIS), or in a PEFT configuration: in the header (diffusers) or in a file beside it.
 * Without either the factor is 1. Source: diffusers loaders/lora_base.py and loaders/peft.py,
 * PEFT tuners/lora/layer.py and utils/other.py (get_pattern_key).
 */
import { readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import type { SafetensorsHeader } from "../models/safetensors-header.ts";
import type { NamedModule } from "./aliases.ts";

/** Gives alpha / rank for a module without an alpha tensor; null where nothing is known of it. */
export type PeftScales = (module: NamedModule, rank: number) => number | null;

/** What the header, or a PEFT configuration beside the file, says of alphas. */
export function peftScalesOf(header: SafetensorsHeader): PeftScales {
  const inHeader = tableOf(header.metadata.get("lora_adapter_metadata"));
  const config = inHeader ?? (isPeft(header) ? configBeside(header.path) : null);
  if (config === null) return () => null;
  return ({ component, path }, rank) => {
    const own = (key: string) => config[`${component}.${key}`] ?? config[key];
    const alpha = patternOf(own("alpha_pattern"), path) ?? own("lora_alpha") ?? own("alpha");
    if (typeof alpha !== "number" || !Number.isFinite(alpha)) return null;
    return alpha / (own("use_rslora") === true ? Math.sqrt(rank) : rank);
  };
}

// --- internal ---

const configBytesMax = 2 ** 22;

type Table = Readonly<Record<string, unknown>>;

/** An object of JSON; null for anything else. */
function tableOf(text: string | undefined): Table | null {
  if (text === undefined) return null;
  try {
    const value: unknown = JSON.parse(text);
    const isTable = typeof value === "object" && value !== null && !Array.isArray(value);
    return isTable ? (value as Table) : null;
  } catch {
    return null;
  }
}

/** Files that PEFT itself has written: their keys name its wrapper of the model. */
function isPeft({ tensors }: SafetensorsHeader): boolean {
  for (const key of tensors.keys()) if (!key.includes("base_model.model.")) return false;
  return tensors.size > 0;
}

/** adapter_config.json in the folder of an adapter_model.safetensors. */
function configBeside(path: string): Table | null {
  const config = join(dirname(path), "adapter_config.json");
  try {
    const stat = statSync(config);
    if (!stat.isFile() || stat.size > configBytesMax) return null;
    return tableOf(readFileSync(config, "utf8"));
  } catch {
    return null;
  }
}

/**
 * The first entry whose key is the end of the module's path. PEFT reads the keys as regular
 * expressions; those that diffusers writes are paths, and a foreign expression is not run here.
 */
function patternOf(pattern: unknown, path: string): unknown {
  if (typeof pattern !== "object" || pattern === null) return undefined;
  const found = Object.entries(pattern).find(([key]) => {
    const plain = key.replace(/^\^/, "").replace(/\$$/, "").replaceAll("\\.", ".");
    return path === plain || (!key.startsWith("^") && path.endsWith(`.${plain}`));
  });
  return found?.[1];
}
