/**
 * The prompts of `--prompts FILE`.
 */
import { readFileSync } from "node:fs";
import { BasedXLError, badOption } from "../../errors.ts";

/** One prompt per line. Throws "io" or "bad-option". */
export function readPrompts(path: string): string[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new BasedXLError("io", `--prompts ${path} cannot be read: ${(error as Error).message}.`);
  }
  const prompts = text.split("\n").map((line) => line.trim());
  const written = prompts.filter((line) => line !== "");
  if (written.length > 0) return written;
  throw badOption(`--prompts ${path} contains no prompt: write one per line.`);
}
