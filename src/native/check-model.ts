/**
 * Whether the library can load a model: it plans a smallest image, which maps the files and checks
 * every tensor's name and shape against the config, and reads no weights.
 */
import { ptr } from "bun:ffi";
import { BasedXLError } from "../errors.ts";
import { type NativeModel, withOptions } from "./handle.ts";
import { lastError, library } from "./library.ts";

/**
 * Throws `BasedXLError` "bad-model" with the library's sentence where the model would not load,
 * "setup" without the library. `latentUnit`: rows and columns of the smallest latent.
 */
export function checkModel(model: NativeModel, latentUnit: number): void {
  const options = {
    model,
    rankCount: 1,
    threadCount: 1,
    gpu: null,
    branchCount: 1,
    latentRows: latentUnit,
    latentWidth: latentUnit,
    splitBatch: false,
    imageCount: 1,
    vaeTileLatent: 0,
  };
  // The plan itself is not read: its length says that there is one.
  const text = new Uint8Array(1);
  const length = withOptions(options, (struct) => library().bxl_plan(struct, ptr(text), 1n));
  if (Number(length) === 0) throw new BasedXLError("bad-model", lastError(null));
}
