/**
 * Entries of settings that are lists: files and numbers.
 */
import type { ItemKind } from "./setting.ts";

/** A path, or the name of a file. */
export const fileItem: ItemKind<string> = {
  read: (text) => text,
  fromJson: (value) => value,
  accepts: (value): value is string => typeof value === "string" && value.trim() !== "",
  format: (file) => file,
  demand: "be the path or name of a file",
};

/** How much something counts. */
export const scaleItem = numberItem(0, 10);

/** A part of the steps. */
export const fractionItem = numberItem(0, 1);

// --- internal ---

function numberItem(min: number, max: number): ItemKind<number> {
  return {
    read: (text) => (/^[+-]?(\d+\.?\d*|\.\d+)$/.test(text.trim()) ? Number(text) : undefined),
    fromJson(value) {
      return typeof value === "string" ? (this.read(value) ?? value) : value;
    },
    accepts: (value): value is number => typeof value === "number" && value >= min && value <= max,
    format: String,
    demand: `be a number from ${min} to ${max}`,
  };
}
