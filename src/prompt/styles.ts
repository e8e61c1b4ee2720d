/**
 * Styles of A1111: rows of a CSV file with name, prompt and negative_prompt. A style's prompt takes
 * the prompt's text in the place of {prompt}, or stands behind it.
 * Source: AUTOMATIC1111 modules/styles.py.
 */

export interface Style {
  prompt: string;
  negativePrompt: string;
}

/** By name; null where the first line does not name the columns. */
export function parseStyles(text: string): Map<string, Style> | null {
  const [head = [], ...rows] = rowsOf(text.replace(/^\uFEFF/, ""));
  const [name, prompt] = ["name", "prompt"].map((column) => head.indexOf(column));
  if (name === -1 || prompt === -1) return null;
  const negative = head.indexOf("negative_prompt");
  return new Map(
    rows.map((row) => [
      row[name!] ?? "",
      { prompt: row[prompt!] ?? "", negativePrompt: row[negative] ?? "" },
    ]),
  );
}

/** A style's text around the prompt's, one of a style's two. */
export function styled(text: string, style: string): string {
  if (style.includes("{prompt}")) return style.replaceAll("{prompt}", () => text);
  return [text, style]
    .filter((part) => part.trim() !== "")
    .map((part) => part.trim())
    .join(", ");
}

// --- internal ---

/** RFC 4180: quotes around fields with commas and lines, doubled where they are meant. */
function rowsOf(text: string): string[][] {
  const rows: string[][] = [];
  let row: string[] = [];
  for (const match of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n][^,\r\n]*)|)(,|\r?\n|\r|$)/g)) {
    const [, quoted, bare = "", end] = match;
    row.push(quoted === undefined ? bare : quoted.replaceAll('""', '"'));
    if (end === ",") continue;
    if (row.length > 1 || row[0] !== "") rows.push(row);
    row = [];
  }
  return rows;
}
