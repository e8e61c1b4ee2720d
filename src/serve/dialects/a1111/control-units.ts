/**
 * The units of A1111's ControlNet extension as settings of a request, with their hints.
 * Source: Forge, extensions-builtin/sd_forge_controlnet/lib_controlnet/external_code.py
 * (ControlNetUnit), sd_forge_ipadapter/scripts/forge_ipadapter.py; sd-webui-controlnet,
 * scripts/preprocessor/.
 */
import { isObject, type JsonObject } from "../../../metadata/foreign-json.ts";
import type { ControlPreprocess } from "../../../settings/control.ts";
import { type RequestSettings, settings as table } from "../../../settings/table.ts";
import type { Capabilities } from "../../capabilities.ts";
import type { InputImages } from "../../jobs/types.ts";
import { nameIn, withoutHash } from "../listed-names.ts";
import { unlessUsual } from "../usual-values.ts";
import { A1111Error, notThere } from "./errors.ts";
import { imageIn, readFields } from "./fields.ts";

/** Of Forge, then of sd-webui-controlnet: CLIP's image encoders. */
const adapterModules = [
  ...["CLIP-ViT-H (IPAdapter)", "CLIP-ViT-bigG (IPAdapter)"],
  ...["ip-adapter-auto", "ip-adapter_clip_h", "ip-adapter_clip_g"],
  ...["ip-adapter_clip_sdxl", "ip-adapter_clip_sdxl_plus_vith"],
];

/**
 * How a hint is made by modules that make what is made here. `tile_resample` gives the image itself
 * at its usual rate; the sigmas of `blur_gaussian` are others, and `recolor_*` are no Rec. 601.
 */
const hintModules = {
  none: "none",
  canny: "canny",
  tile_resample: "none",
} as const satisfies Readonly<Record<string, ControlPreprocess>>;

interface ControlUnits {
  settings: Partial<RequestSettings>;
  images: Pick<InputImages, "controlImages" | "ipImages">;
}

type Lists = Pick<Capabilities, "controlnets" | "ipAdapters">;

/** Whether an always-on script is the extension. */
export function isControlNet(name: string): boolean {
  return /^controlnet$/i.test(name);
}

/** `initImage` is the hint where a unit has none, as in img2img. Throws `A1111Error`. */
export function controlUnitsOf(
  scripts: JsonObject,
  lists: Lists,
  initImage: Uint8Array | null,
): ControlUnits {
  const units = Object.entries(scripts)
    .filter(([name]) => isControlNet(name))
    .flatMap(([, script]) => argsOf(script))
    .map((unit) => readFields(unitFields, unit))
    .filter(({ enabled, model }) => enabled && !/^none$/i.test(model))
    .map((unit) => usedUnit(unit, lists, initImage));
  const ofKind = (kind: UsedUnit["kind"]) => units.filter((unit) => unit.kind === kind);
  const [hints, adapters] = [ofKind("controlnet"), ofKind("ip-adapter")];
  return {
    settings: { ...controlSettings(hints), ...adapterSettings(adapters) },
    images: {
      controlImages: hints.map(({ image }) => image),
      ipImages: adapters.map(({ image }) => image),
    },
  };
}

/** What /controlnet/model_list answers with. */
export function controlModels({ controlnets, ipAdapters }: Lists): string[] {
  return [...controlnets, ...ipAdapters].map(({ name }) => name);
}

/** What /controlnet/module_list answers with. */
export const controlModules = [...Object.keys(hintModules), ...adapterModules];

// --- internal ---

const unitFields = {
  enabled: { kind: "flag", default: true },
  module: { kind: "text", default: "None" },
  model: { kind: "text", default: "None" },
  weight: { kind: "number", default: 1 },
  resize_mode: { kind: "text", default: "Crop and Resize" },
  threshold_a: { kind: "number", default: -1 },
  threshold_b: { kind: "number", default: -1 },
  guidance_start: { kind: "number", default: 0 },
  guidance_end: { kind: "number", default: 1 },
  control_mode: { kind: "text", default: "Balanced" },
  union_control_type: { kind: "text", default: "Unknown" },
  guess_mode: { kind: "flag", default: false },
  hint: { kind: "list", default: [] },
} as const;

type Unit = ReturnType<typeof readFields<typeof unitFields>>;

interface UsedUnit {
  kind: "controlnet" | "ip-adapter";
  /** Of the server's list. */
  name: string;
  unit: Unit;
  image: Uint8Array;
}

function usedUnit(unit: Unit, lists: Lists, initImage: Uint8Array | null): UsedUnit {
  const name = withoutHash(unit.model);
  const image = () => hintOf(unit, initImage);
  const adapter = nameIn(lists.ipAdapters, name);
  if (adapter !== null) {
    refuseOtherEncoder(unit);
    return { kind: "ip-adapter", name: adapter, unit, image: image() };
  }
  refuseOthers(unit);
  const network = nameIn(lists.controlnets, name);
  if (network !== null) return { kind: "controlnet", name: network, unit, image: image() };
  throw new A1111Error(422, `ControlNet model not found: ${name.slice(0, 100)}`);
}

function controlSettings(used: readonly UsedUnit[]): Partial<RequestSettings> {
  if (used.length === 0) return {};
  const units = used.map(({ unit }) => unit);
  const modules = units.map(({ module }) => hintModules[moduleOf(module)!]);
  const { scales, starts, ends } = partsOf(units);
  return {
    ...{ controlnet: used.map(({ name }) => name), controlScale: scales },
    ...{ controlStart: starts, controlEnd: ends },
    controlPreprocess: unlessUsual(modules, "none"),
    ...typesOf(units),
  };
}

function adapterSettings(used: readonly UsedUnit[]): Partial<RequestSettings> {
  if (used.length === 0) return {};
  const { scales, starts, ends } = partsOf(used.map(({ unit }) => unit));
  const ipAdapter = used.map(({ name }) => name);
  return { ipAdapter, ipScale: scales, ipStart: starts, ipEnd: ends };
}

/** How much, and when. */
function partsOf(units: readonly Unit[]) {
  const values = <Key extends keyof Unit>(key: Key) => units.map((unit) => unit[key]);
  return {
    scales: unlessUsual(values("weight"), 1),
    starts: unlessUsual(values("guidance_start"), 0),
    ends: unlessUsual(values("guidance_end"), 1),
  };
}

function argsOf(script: unknown): JsonObject[] {
  const args = isObject(script) ? (script.args ?? []) : script;
  return (Array.isArray(args) ? args : []).filter(isObject).map((unit) => {
    return { ...unit, hint: [unit.image ?? unit.input_image ?? null] };
  });
}

/** Null for one whose hint is not made here. */
function moduleOf(module: string): keyof typeof hintModules | null {
  const name = module.toLowerCase();
  return Object.hasOwn(hintModules, name) ? (name as keyof typeof hintModules) : null;
}

/** An adapter says by its widths which encoder it reads; those of faces need another program. */
function refuseOtherEncoder({ module }: Unit): void {
  const plain = module.toLowerCase();
  if (plain === "none" || adapterModules.some((name) => name.toLowerCase() === plain)) return;
  throw notThere(
    `The preprocessor ${JSON.stringify(module.slice(0, 100))} of an IP-Adapter (module)`,
  );
}

/** What the extension has and this program has not. */
function refuseOthers(unit: Unit): void {
  const { resize_mode: resize, control_mode: mode } = unit;
  const module = moduleOf(unit.module);
  if (module === null) {
    throw notThere(`The preprocessor ${JSON.stringify(unit.module.slice(0, 100))} (module)`);
  }
  const isOther = (value: number, usual: number) => value >= 0 && value !== usual;
  if (module === "canny" && (isOther(unit.threshold_a, 100) || isOther(unit.threshold_b, 200))) {
    throw notThere("Thresholds of canny but 100 and 200 (threshold_a, threshold_b)");
  }
  // Below it the extension resamples nothing.
  if (module === "tile_resample" && unit.threshold_a >= 1.1) {
    throw notThere("A rate of tile_resample but 1 (threshold_a)");
  }
  if (!/^(1|crop and resize|.*inner fit.*)$/i.test(resize)) {
    throw notThere(`Of ControlNet, resize_mode ${JSON.stringify(resize.slice(0, 100))}`);
  }
  if (!/^(0|balanced)$/i.test(mode) || unit.guess_mode) {
    throw notThere(`Of ControlNet, control_mode ${JSON.stringify(mode.slice(0, 100))}`);
  }
}

function typesOf(units: readonly Unit[]): Partial<RequestSettings> {
  const names = units.map(({ union_control_type: type }) => type.toLowerCase());
  if (names.every((name) => name === "unknown")) return {};
  const { of } = table.controlType;
  return { controlType: names.map((name) => of.read(name) ?? 0) };
}

function hintOf({ hint: [sent] }: Unit, initImage: Uint8Array | null): Uint8Array {
  const text = isObject(sent) ? sent.image : sent;
  if (typeof text === "string") return imageIn(text);
  if (initImage !== null) return initImage;
  throw new A1111Error(422, "controlnet is enabled but no input image is given");
}
