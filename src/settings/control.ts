/**
 * Entries of the settings of networks that steer by a hint image; ./table/control.ts has the rows.
 */
import { controlCountMax } from "../native/abi.ts";
import type { ItemKind } from "./setting.ts";

export { controlCountMax };

/** How a hint is made of an image. */
export const controlPreprocessors = ["none", "canny", "grey", "blur", "tile"] as const;
export type ControlPreprocess = (typeof controlPreprocessors)[number];

/** Types of hints of union models by the names of their kinds; the index is the model's. */
export const controlTypes = [
  ["openpose", "pose"],
  ["depth"],
  ["sketch", "hed", "pidi", "scribble", "ted", "softedge"],
  ["line", "canny", "lineart", "anime_lineart", "mlsd"],
  ["normal"],
  ["segment", "seg"],
  ["tile", "blur"],
  ["repaint", "inpaint"],
] as const satisfies readonly (readonly [string, ...string[]])[];

const typeNames = controlTypes.map(([name]) => name);

/** The number of a type; names are read. */
export const controlTypeItem: ItemKind<number> = {
  read(text) {
    const name = text.trim().toLowerCase().replaceAll("-", "_");
    const index = controlTypes.findIndex((names) => names.some((each) => each === name));
    if (index >= 0) return index;
    return /^\d{1,2}$/.test(name) ? Number(name) : undefined;
  },
  fromJson(value) {
    return typeof value === "string" ? (this.read(value) ?? value) : value;
  },
  accepts: (value): value is number => Number.isInteger(value) && (value as number) >= 0,
  format: (type) => controlTypes[type]?.[0] ?? String(type),
  demand: `be ${typeNames.join(", ")}, or the number of a type`,
  names: typeNames,
};

export const controlPreprocessItem: ItemKind<ControlPreprocess> = {
  read: (text) => controlPreprocessors.find((name) => name === text.trim().toLowerCase()),
  fromJson: (value) => value,
  accepts: (value): value is ControlPreprocess =>
    controlPreprocessors.some((name) => name === value),
  format: (name) => name,
  demand: `be ${controlPreprocessors.slice(0, -1).join(", ")} or ${controlPreprocessors.at(-1)}`,
  names: controlPreprocessors,
};
