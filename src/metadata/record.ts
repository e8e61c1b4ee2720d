/**
 * The program's own text in images: JSON with the settings by their names in requests, and the
 * files by name and hash.
 */
import * as v from "valibot";
import { type SettingKey, settingOf } from "../settings/table.ts";

/** Grows when older programs would misread the text. */
export const formatVersion = 1;

/** Whether images depend on the setting: others are neither written nor taken from a file. */
export function isRecorded(key: SettingKey): boolean {
  const { scope, kind, unrecorded } = settingOf(key);
  return scope !== "command" && kind !== "path" && !unrecorded;
}

const file = v.object({
  name: v.string(),
  /** 64 digits for each file; absent where they were not known in time. */
  sha256: v.optional(v.array(v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)))),
});

export const ownSchema = v.object({
  /** The program's version. */
  basedxl: v.string(),
  format: v.literal(formatVersion),
  settings: v.record(v.string(), v.unknown()),
  model: v.object({
    ...file.entries,
    /** It comes with the program. */
    bundled: v.optional(v.boolean()),
    /** The hashes are those of a folder's UNet. */
    component: v.optional(v.literal("unet")),
  }),
  vae: v.optional(file),
  refiner: v.optional(v.object({ ...file.entries, component: v.optional(v.literal("unet")) })),
  /** SHA-256 of the pixels of the image that it started from, and of the mask's. */
  input: v.optional(v.object({ image: v.string(), mask: v.optional(v.string()) })),
  /** Which adapters saw which images, by the SHA-256 of their pixels. */
  ip_adapters: v.optional(
    v.array(
      v.object({
        name: v.string(),
        images: v.array(v.string()),
        scales: v.array(v.number()),
        start: v.number(),
        end: v.number(),
      }),
    ),
  ),
  /** By what it was enlarged afterwards, in order. */
  enlarged: v.optional(v.array(v.object({ upscaler: v.string(), factor: v.number() }))),
  /** The name of the folder that --config named. */
  config: v.optional(v.string()),
  /** Hashes of the tensors alone. */
  loras: v.array(file),
  embeddings: v.array(file),
  /** The CPU's instruction set or the GPU. */
  hardware: v.string(),
});

export type OwnRecord = v.InferOutput<typeof ownSchema>;
export type OwnFile = v.InferOutput<typeof file>;
