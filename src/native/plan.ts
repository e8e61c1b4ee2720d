/**
 * Plans without a session: the library maps a model's files and checks every tensor's name and
 * shape against the config, and reads no weights.
 */
import { ptr } from "bun:ffi";
import { BasedXLError } from "../errors.ts";
import { type HandleOptions, type NativeModel, smallestOptions, withOptions } from "./handle.ts";
import { lastError, library } from "./library.ts";

/**
 * Writes the plan of a session to `text` as far as it fits, and returns its length in bytes. Throws
 * `BasedXLError` "bad-model" with the library's sentence for a wrong model or size.
 */
export function writePlan(options: HandleOptions, text: Uint8Array): number {
  const length = Number(
    withOptions(options, (struct) => library().bxl_plan(struct, ptr(text), BigInt(text.length))),
  );
  if (length === 0) throw new BasedXLError("bad-model", lastError(null) || "There is no plan.");
  return length;
}

/**
 * Throws `BasedXLError` "bad-model" with the library's sentence where the model would not load,
 * "setup" without the library. `latentUnit`: rows and columns of the smallest latent.
 */
export function checkModel(model: NativeModel, latentUnit: number): void {
  // A model with a plan loads; the plan itself is not read.
  writePlan(smallestOptions(model, latentUnit), new Uint8Array(1));
}
