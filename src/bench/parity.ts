/**
 * `bun run bench parity`: a table of every parity measure beside its limit, row by row. The exit
 * code is 1 when one exceeds its limit.
 */
import { measureFullSize, measureParity } from "./support/parity.ts";

/** `args`: nothing, or `--full-size FOLDER` for the comparison at SDXL's own size. */
export async function run(args: string[]): Promise<number> {
  const [flag, folder] = args;
  if (flag !== undefined && (flag !== "--full-size" || folder === undefined || args.length > 2)) {
    process.stderr.write("Usage: bun run bench parity [--full-size FOLDER]\n");
    return 2;
  }
  process.stdout.write(`${line("reference", "what", "measured", "allowed", "unit")}\n`);
  const measures = folder === undefined ? measureParity() : measureFullSize(folder);
  let failed = 0;
  let count = 0;
  for await (const { model, what, measured, allowed, unit } of measures) {
    count += 1;
    const isWithin = measured <= allowed;
    if (!isWithin) failed += 1;
    const mark = isWithin ? "" : "  OVER";
    process.stdout.write(`${line(model, what, show(measured), show(allowed), unit)}${mark}\n`);
  }
  process.stdout.write(`${count - failed} of ${count} within their limits.\n`);
  return failed === 0 ? 0 : 1;
}

// --- internal ---

function line(model: string, what: string, measured: string, allowed: string, unit: string) {
  const numbers = `${measured.padStart(9)}  ${allowed.padStart(8)}`;
  return `${model.padEnd(10)}${what.padEnd(48)}${numbers}  ${unit}`;
}

function show(value: number): string {
  return Number.isInteger(value) ? String(value) : value.toExponential(1);
}
