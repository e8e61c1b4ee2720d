/**
 * `bun run bench soak`: a thousand images of mixed size, mode, ranks, sampler, reuse and LoRAs, by
 * pipelines of one process, then by a server: whether memory, threads, handles and mapped regions
 * stay as they are. The exit code is 1 where a limit is missed.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ArgsDef } from "citty";
import { compileLoopsAlone } from "../serve/jit.ts";
import { renderHelp } from "../terminal/help.ts";
import { namesOf, readFlags, sharedFlags, wholeOf } from "./flags.ts";
import { renderTable } from "./report.ts";
import { type SoakReading, soakServer, soakSessions } from "./support/soak-parts.ts";
import { writeSoakLoras } from "./support/soak-requests.ts";

const partNames = ["session", "server"] as const;

const flags = {
  parts: { type: "string", valueHint: "LIST", description: "Of session, server. Default: both." },
  images: {
    type: "string",
    valueHint: "N",
    description: "Images of each part, 100 to 100000. Default: 1000.",
  },
  help: sharedFlags.help,
} as const satisfies ArgsDef;

const help = {
  usage: "basedxl bench soak [flags]",
  summary: "Generates many mixed images and looks at what the process holds, on CPU ranks.",
  examples: ["basedxl bench soak", "basedxl bench soak --parts server --images 500"],
  groups: [["Flags", ["parts", "images", "help"]]] as const,
  notes: [],
};

export async function run(args: string[]): Promise<number> {
  const given = readFlags(args, flags);
  if (given.help) {
    process.stdout.write(renderHelp(help, flags));
    return 0;
  }
  const imageCount = wholeOf(given, "images", { min: 100, max: 100_000 }) ?? 1000;
  const parts = namesOf(given, "parts", partNames) ?? partNames;
  const rows: Row[] = [];
  for (const part of parts) rows.push(...(await soaked(part, imageCount)));
  const cells = rows.map(({ what, value, limit }) => {
    return [what, value.toFixed(3), limit.toFixed(2), value <= limit ? "yes" : "no"];
  });
  process.stdout.write(renderTable(["what", "measured", "limit", "holds"], cells));
  return rows.every(({ value, limit }) => value <= limit) ? 0 : 1;
}

// --- internal ---

interface Row {
  what: string;
  value: number;
  limit: number;
}

async function soaked(part: (typeof partNames)[number], imageCount: number): Promise<Row[]> {
  // As services are: what compiled code takes is no job's.
  compileLoopsAlone();
  const folder = mkdtempSync(join(tmpdir(), "basedxl-bench-soak-"));
  try {
    await writeSoakLoras(folder);
    const isRead = (count: number) => count === 10 || count % 50 === 0;
    const soak = part === "session" ? soakSessions : soakServer;
    return rowsOf(part, await soak({ folder, imageCount, isRead, onReading: log(part) }));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function log(part: string) {
  return (reading: SoakReading) => {
    const mb = (bytes: number) => (bytes / 1e6).toFixed(1);
    process.stderr.write(
      `${part}, ${reading.imageCount} images: ${mb(reading.residentBytes)} MB resident \
(${mb(reading.anonymousBytes)} of no file, ${mb(reading.fileBytes)} of files), \
${reading.threadCount} threads, ${reading.handleCount} handles, ${reading.regionCount} regions\n`,
    );
  };
}

function rowsOf(part: string, readings: readonly SoakReading[]): Row[] {
  const after = (count: number) => readings.find((reading) => reading.imageCount === count)!;
  const last = readings.at(-1)!;
  const growth = (key: keyof SoakReading, count: number) => last[key] / after(count)[key];
  const row = (what: string, value: number, limit: number) => ({
    ...{ what: `${part}: ${what}`, value, limit },
  });
  const rows = [
    row("resident bytes at the end, of those after 50 images", growth("residentBytes", 50), 1.01),
    row("threads, likewise", growth("threadCount", 50), 1.01),
    row("handles, likewise", growth("handleCount", 50), 1.01),
    row("mapped regions, likewise", growth("regionCount", 50), 1.01),
  ];
  if (part === "session") return rows;
  return [...rows, row("resident bytes, of those after 10", growth("residentBytes", 10), 1.02)];
}
