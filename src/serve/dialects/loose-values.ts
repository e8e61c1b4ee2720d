/**
 * Values of fields as programs in Python read them: texts of numbers are numbers, booleans are 0
 * and 1, and whole numbers of 64 bits stay texts of digits. undefined for what cannot be read.
 */
import { numberOf } from "../../metadata/foreign-json.ts";

export function looseText(sent: unknown): string | undefined {
  if (typeof sent === "string") return sent;
  return typeof sent === "number" || typeof sent === "boolean" ? String(sent) : undefined;
}

export function looseNumber(sent: unknown): number | undefined {
  return numberOf(typeof sent === "boolean" ? Number(sent) : sent);
}

/** A whole number that a double may not hold, as the bodies of requests have it. */
export function longWhole(sent: unknown): string | undefined {
  const isLong = typeof sent === "string" && /^\s*[+-]?\d{16,30}\s*$/.test(sent);
  return isLong ? sent.trim() : undefined;
}
