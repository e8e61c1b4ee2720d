/**
 * A folder as an entry of a setting that lists them.
 */
import type { ItemKind } from "./setting.ts";

export const folderItem: ItemKind<string> = {
  read: (text) => text,
  fromJson: (value) => value,
  accepts: (value): value is string => typeof value === "string" && value.trim() !== "",
  format: (folder) => folder,
  demand: "be the path of a folder",
};

export const folderCountMax = 100;
