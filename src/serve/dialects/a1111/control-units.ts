/**
 * The units of A1111's ControlNet extension as settings of a request, with their hints.
 * Source: Forge, extensions-builtin/sd_forge_controlnet/lib_controlnet/external_code.py
 * (ControlNetUnit).
 */
import { isObject, type JsonObject } from "../../../metadata/foreign-json.ts";
import { type RequestSettings, settings as table } from "../../../settings/table.ts";
import type { Capabilities } from "../../capabilities.ts";
import { nameIn, withoutHash } from "../listed-names.ts";
import { A1111Error, notThere } from "./errors.ts";
import { imageIn, readFields } from "./fields.ts";

interface ControlUnits {
  settings: Partial<RequestSettings>;
  images: Uint8Array[];
}

/** Whether an always-on script is the extension. */
export function isControlNet(name: string): boolean {
  return /^controlnet$/i.test(name);
}

/** `initImage` is the hint where a unit has none, as in img2img. Throws `A1111Error`. */
export function controlUnitsOf(
  scripts: JsonObject,
  { controlnets }: Pick<Capabilities, "controlnets">,
  initImage: Uint8Array | null,
): ControlUnits {
  const units = Object.entries(scripts)
    .filter(([name]) => isControlNet(name))
    .flatMap(([, script]) => argsOf(script))
    .map((unit) => readFields(unitFields, unit))
    .filter(({ enabled, model }) => enabled && !/^none$/i.test(model));
  if (units.length === 0) return { settings: {}, images: [] };
  for (const unit of units) refuseOthers(unit);
  return {
    settings: {
      controlnet: units.map(({ model }) => {
        const name = nameIn(controlnets, withoutHash(model));
        if (name !== null) return name;
        throw new A1111Error(422, `ControlNet model not found: ${model.slice(0, 100)}`);
      }),
      controlScale: units.map(({ weight }) => weight),
      controlStart: units.map(({ guidance_start: start }) => start),
      controlEnd: units.map(({ guidance_end: end }) => end),
      controlPreprocess: units.map(({ module }) => (isCanny(module) ? "canny" : "none")),
      ...typesOf(units),
    },
    images: units.map((unit) => hintOf(unit, initImage)),
  };
}

/** What /controlnet/module_list answers with. */
export const controlModules = ["none", "canny"];

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

function argsOf(script: unknown): JsonObject[] {
  const args = isObject(script) ? (script.args ?? []) : script;
  return (Array.isArray(args) ? args : []).filter(isObject).map((unit) => {
    return { ...unit, hint: [unit.image ?? unit.input_image ?? null] };
  });
}

function isCanny(module: string): boolean {
  return /^canny$/i.test(module);
}

/** What the extension has and this program has not. */
function refuseOthers(unit: Unit): void {
  const { module, resize_mode: resize, control_mode: mode } = unit;
  if (!isCanny(module) && !/^none$/i.test(module)) {
    throw notThere(`The preprocessor ${JSON.stringify(module.slice(0, 100))} (module)`);
  }
  const isOther = (value: number, usual: number) => value >= 0 && value !== usual;
  if (isCanny(module) && (isOther(unit.threshold_a, 100) || isOther(unit.threshold_b, 200))) {
    throw notThere("Thresholds of canny but 100 and 200 (threshold_a, threshold_b)");
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
