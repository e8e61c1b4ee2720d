/**
 * The report of a bench: a table on stdout, and a folder with NAME.json (every number), NAME.svg
 * and NAME.png (the chart). Files are replaced atomically.
 */
import { mkdirSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { parse, View } from "vega";
import { compile, type TopLevelSpec } from "vega-lite";
import { BasedXLError } from "../errors.ts";
import { writeWhole } from "../image/files.ts";
import { probeDevice } from "../native/device-info.ts";

/** Pixels of the PNG per pixel of the SVG. */
const pngScale = 2;

/** A table in Markdown: text left-aligned, numbers right-aligned. */
export function renderTable(heads: readonly string[], rows: readonly (readonly string[])[]) {
  const isText = heads.map((_, i) => rows.some((row) => /[a-z]{4}/i.test(row[i] ?? "")));
  const widths = heads.map((head, i) =>
    Math.max(3, head.length, ...rows.map((row) => (row[i] ?? "").length)),
  );
  const line = (cells: readonly string[]) =>
    `| ${cells
      .map((cell, i) => (isText[i] ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join(" | ")} |`;
  const rule = widths.map((width, i) =>
    isText[i] ? "-".repeat(width + 2) : `${"-".repeat(width + 1)}:`,
  );
  return `${[line(heads), `|${rule.join("|")}|`, ...rows.map(line)].join("\n")}\n`;
}

/** Facts of the machine, for the JSON. */
export function machine() {
  const { cpuName, instructionSet, coreCount } = probeDevice();
  return { cpuName: cpuName || (cpus()[0]?.model ?? ""), instructionSet, coreCount };
}

/** Writes the three files and prints their paths on stdout. Throws "io". */
export async function writeReport(
  folder: string,
  name: string,
  data: unknown,
  chart: TopLevelSpec,
): Promise<void> {
  try {
    mkdirSync(folder, { recursive: true });
  } catch (error) {
    throw new BasedXLError("io", `Cannot make the folder ${folder}: ${(error as Error).message}.`);
  }
  const svg = await renderChart(chart);
  const paths = ["json", "svg", "png"].map((ending) => join(folder, `${name}.${ending}`));
  const json = `${JSON.stringify(data, null, 2)}\n`;
  const png = await sharp(Buffer.from(svg), { density: 72 * pngScale })
    .flatten({ background: "white" })
    .png()
    .toBuffer();
  const contents = [Buffer.from(json), Buffer.from(svg), png];
  for (const [i, path] of paths.entries()) await writeWhole(path, contents[i]!);
  process.stdout.write(`Wrote ${paths.join(", ")}\n`);
}

/** Renders a vega-lite chart as SVG; its data must be inline, since nothing is fetched. */
export async function renderChart(chart: TopLevelSpec): Promise<string> {
  const { spec } = compile({ background: "white", padding: 10, ...chart });
  const view = new View(parse(spec), { renderer: "none" });
  const svg = await view.toSVG();
  view.finalize();
  return svg;
}
