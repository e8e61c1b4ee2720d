/**
 * `bun run bench parity`: every parity measure beside its bar, as a table, while they are taken. The
 * exit code is 1 when one is over.
 */
import { measureParity } from "../support/parity.ts";

export async function run(): Promise<number> {
  process.stdout.write(`${line("reference", "what", "measured", "allowed", "unit")}\n`);
  let failed = 0;
  let count = 0;
  for await (const { model, what, measured, allowed, unit } of measureParity()) {
    count += 1;
    const isWithin = measured <= allowed;
    if (!isWithin) failed += 1;
    const mark = isWithin ? "" : "  OVER";
    process.stdout.write(`${line(model, what, show(measured), show(allowed), unit)}${mark}\n`);
  }
  process.stdout.write(`${count - failed} of ${count} within their bars.\n`);
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
