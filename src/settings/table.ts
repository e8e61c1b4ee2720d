/**
 * Every setting of image generation, one row each, in the file of its group. Flags, parsing, ranges
 * and their sentences, `--help`, shell completions, the output of `--json`, the comparison between
 * processes and the schema of requests all follow from these rows: adding a setting is one row in
 * a file of table/, one field of `Request` in zig/abi/types.zig, and its use.
 */
import type { Given, Resolved, Setting } from "./setting.ts";
import { controlSettings } from "./table/control.ts";
import { gpuSettings } from "./table/gpus.ts";
import { hiresSettings } from "./table/hires.ts";
import { imageSettings } from "./table/image.ts";
import { inputSettings } from "./table/input.ts";
import { ipAdapterSettings } from "./table/ip-adapter.ts";
import { modelSettings } from "./table/model.ts";
import { outputSettings } from "./table/output.ts";
import { rankSettings } from "./table/ranks.ts";
import { refinerSettings } from "./table/refiner.ts";
import { reuseSettings } from "./table/reuse.ts";
import { samplingSettings } from "./table/sampling.ts";
import { seedSettings } from "./table/seeds.ts";
import { sizeSettings } from "./table/size.ts";

export const settings = {
  ...imageSettings,
  ...inputSettings,
  ...controlSettings,
  ...ipAdapterSettings,
  ...seedSettings,
  ...sizeSettings,
  ...samplingSettings,
  ...refinerSettings,
  ...hiresSettings,
  ...reuseSettings,
  ...modelSettings,
  ...gpuSettings,
  ...rankSettings,
  ...outputSettings,
} as const satisfies Readonly<Record<string, Setting>>;

type Settings = typeof settings;
export type SettingKey = keyof Settings;

/** The settings of which something holds, such as `{ scope: "request" }`. */
export type KeysWhere<Condition> = {
  [Key in SettingKey]: Settings[Key] extends Condition ? Key : never;
}[SettingKey];

/** What flags give, before a model is known. */
export type GivenSettings<Key extends SettingKey = SettingKey> = {
  [K in Key]: Given<Settings[K]>;
};

/** The same once the model has filled in its defaults. */
export type ResolvedSettings<Key extends SettingKey = SettingKey> = {
  [K in Key]: Resolved<Settings[K]>;
};

/** What a request may give; everything may be left out. */
export type RequestSettings = {
  [K in KeysWhere<{ scope: "request" }>]?: Given<Settings[K]> | undefined;
};

/** In the order of the table. */
export const settingKeys = Object.keys(settings) as SettingKey[];

/** Keys that a request may give. */
export const requestKeys = settingKeys.filter((key) => settings[key].scope === "request");

/** Settings that may differ between images: one value for all, or one for each. */
export const perImageKeys = [
  ...(["prompt", "prompt2", "negativePrompt", "negativePrompt2"] as const),
  "guidanceScale",
] as const satisfies readonly SettingKey[];

/** Settings whose values are images: paths as flags, also bytes and pixels in the API. */
export const imageKeys = [
  ...(["image", "mask", "controlImage", "ipImage"] as const),
] as const satisfies SettingKey[];
export type ImageKey = (typeof imageKeys)[number];

export function isImageKey(key: SettingKey): key is ImageKey {
  return imageKeys.some((each) => each === key);
}

/** A row without what is special about it, for code that treats all alike. */
export function settingOf(key: SettingKey): Setting {
  return settings[key];
}
