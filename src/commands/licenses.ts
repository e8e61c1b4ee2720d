/**
 * `basedxl licenses`: everything that is bundled, with the whole texts.
 */
import { defineCommand } from "citty";
import type { License } from "../binary/contents.ts";
import { BasedXLError } from "../errors.ts";
import { resources } from "../resources.ts";
import { suggestion } from "../terminal/flags.ts";
import { writeJson } from "../terminal/output.ts";
import { licensesFlags } from "./licenses-flags.ts";

export const licensesCommand = defineCommand({
  meta: { name: "licenses", description: "List what is bundled, with licences" },
  args: licensesFlags,
  async run({ args }) {
    const all = await resources.licenses();
    const chosen = args.name === undefined ? all : named(all, args.name);
    if (args.json) writeJson(chosen);
    else if (args.texts || args.name !== undefined) process.stdout.write(renderTexts(chosen));
    else process.stdout.write(renderList(chosen));
    return 0;
  },
});

// --- internal ---

/** Those of the exact name, else those that begin with it. Throws "bad-option" for none. */
function named(all: readonly License[], name: string): License[] {
  const wanted = name.toLowerCase();
  const bare = ({ name: each }: License) => each.replace(/ \(in .*\)$/, "").toLowerCase();
  const exact = all.filter((each) => bare(each) === wanted);
  if (exact.length > 0) return exact;
  const begins = all.filter((each) => bare(each).startsWith(wanted));
  if (begins.length > 0) return begins;
  throw new BasedXLError(
    "bad-option",
    `Nothing bundled is called "${name}".${suggestion(name, all.map(bare))} \`basedxl licenses\` \
lists everything.`,
  );
}

function renderList(licenses: readonly License[]): string {
  const rows = licenses.map(({ name, version, license, source }) => [
    name,
    version,
    license,
    source,
  ]);
  const widths = [0, 1, 2].map((i) => Math.max(...rows.map((row) => (row[i] ?? "").length)) + 2);
  const lines = rows.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join("")
      .trimEnd(),
  );
  return `${lines.join("\n")}\n\nbasedxl licenses NAME prints a text, --texts all of them.\n`;
}

function renderTexts(licenses: readonly License[]): string {
  return licenses
    .map(({ name, version, license, source, text }) => {
      const head = [[name, version].filter(Boolean).join(" "), license, source].filter(Boolean);
      return `${"=".repeat(80)}\n${head.join("\n")}\n${"=".repeat(80)}\n\n${text.trimEnd()}\n`;
    })
    .join("\n");
}
