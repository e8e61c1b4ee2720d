/**
 * sharp, with libvips. Imported on first use: in the binary, the import extracts it.
 */

/** Rejects with the linker's error where the library cannot be loaded. */
export async function importSharp(): Promise<typeof import("sharp")["default"]> {
  const sharp = (await import("sharp")).default;
  // It would keep the last 100 operations with what they hold, and hardly two are alike here.
  sharp.cache(false);
  return sharp;
}
