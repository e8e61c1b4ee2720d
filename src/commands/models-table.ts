/**
 * The table of `models`: a group for each kind, columns that are as wide as their contents, and no
 * wider in all than the terminal.
 */
import { homedir } from "node:os";
import { dirname } from "node:path";
import { escaped } from "../errors.ts";
import { shortHash } from "../library/hashes.ts";
import { type ListedKind, listedKinds } from "../library/kinds.ts";
import type { ListedModel } from "../library/list.ts";
import { formatBytes } from "../terminal/units.ts";

export interface ModelRow extends ListedModel {
  /** null where it is not computed. */
  sha256: string | null;
}

/** The whole text; `columns` is the terminal's width, null for none. */
export function renderModels(
  rows: readonly ModelRow[],
  folders: readonly string[],
  columns: number | null,
): string {
  if (rows.length === 0) return emptyText(folders);
  const width = columns ?? Number.POSITIVE_INFINITY;
  const groups = listedKinds.flatMap((kind) => {
    const inGroup = rows.filter((row) => row.kind === kind);
    if (inGroup.length === 0) return [];
    return [[`${titles[kind]} (${inGroup.length})`, ...linesOf(inGroup, width)]];
  });
  return `${groups.map((lines) => lines.join("\n")).join("\n\n")}\n`;
}

// --- internal ---

const titles: Record<ListedKind, string> = {
  checkpoint: "Models",
  unet: "Diffusion models alone",
  lora: "LoRAs",
  vae: "VAEs",
  taesd: "TAESDs",
  embedding: "Embeddings",
  controlnet: "ControlNets",
  adapter: "Adapters",
  upscaler: "Upscalers",
  "text-encoder": "Text encoders",
  unknown: "Of an unknown kind",
  unreadable: "Cannot be read",
};

function emptyText(folders: readonly string[]): string {
  const where = folders.map((folder) => escaped(folder)).join(", ");
  const what = folders.length === 0 ? "No folder of models is named" : `No models in ${where}`;
  return `${what}: --models-dir or the variable BASEDXL_MODELS_DIR names one.\n`;
}

/** Name, what it is or why it is not read, size, hash, folder. */
function linesOf(rows: readonly ModelRow[], width: number): string[] {
  const cells = rows.map((row) => [
    escaped(row.name),
    escaped(row.problem ?? row.detail),
    formatBytes(row.bytes),
    row.sha256 === null ? "" : shortHash(row.sha256),
    escaped(shortPath(dirname(row.path))),
  ]);
  const natural = [0, 1, 2, 3, 4].map((column) =>
    Math.max(...cells.map((line) => Bun.stringWidth(line[column] ?? ""))),
  );
  const widths = fitted(natural, width - indent.length);
  return cells.map((line) => {
    const shown = line.map((cell, column) => {
      const cut = column === 4 ? endOf(cell, widths[4]!) : startOf(cell, widths[column]!);
      const space = " ".repeat(Math.max(0, widths[column]! - Bun.stringWidth(cut)));
      return column === 2 ? space + cut : cut + space;
    });
    return (indent + shown.filter((_, column) => widths[column]! > 0).join(gap)).trimEnd();
  });
}

const indent = "  ";
const gap = "  ";
/** Columns of names, details and folders are left that wide, while there is room. */
const narrowest = [16, 12, 0, 0, 16] as const;

/** Takes width from the folder first, then from the details, then from the names. */
function fitted(natural: readonly number[], width: number): number[] {
  const widths = [...natural];
  const total = () => {
    const used = widths.filter((each) => each > 0);
    return used.reduce((sum, each) => sum + each, 0) + gap.length * (used.length - 1);
  };
  for (const column of [4, 1, 0] as const) {
    const excess = total() - width;
    if (excess > 0) widths[column] = Math.max(narrowest[column], widths[column]! - excess);
  }
  // On a very narrow terminal names are worth more than the rest.
  for (const column of [4, 1, 3, 2]) if (total() > width) widths[column] = 0;
  if (total() > width) widths[0] = Math.max(1, width);
  return widths;
}

function startOf(text: string, width: number): string {
  if (Bun.stringWidth(text) <= width) return text;
  let cut = "";
  for (const character of text) {
    if (Bun.stringWidth(cut + character) > width - 1) break;
    cut += character;
  }
  return `${cut}…`;
}

/** The end says more of a path. */
function endOf(text: string, width: number): string {
  if (Bun.stringWidth(text) <= width) return text;
  const reversed = startOf([...text].reverse().join(""), width);
  return [...reversed].reverse().join("");
}

function shortPath(path: string): string {
  const home = homedir();
  return path === home || path.startsWith(`${home}/`) ? `~${path.slice(home.length)}` : path;
}
