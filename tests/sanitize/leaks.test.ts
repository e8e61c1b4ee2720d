/**
 * That the library which looks for leaks finds one. `bun run sanitize leaks` runs it, and knows how
 * it must end; in `bun test` it is skipped, for it ends the process.
 */
import { dlopen } from "bun:ffi";
import { test } from "bun:test";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { Pipeline } from "../../src/pipeline.ts";

test.skipIf(!process.env.BASEDXL_MAKE_LEAK)("a leak ends the process", async () => {
  const { libraryPath } = await import("./leaks-preload.ts");
  const leak = { bxl_leak: { args: [], returns: "void" } } as const;
  dlopen(libraryPath, leak).symbols.bxl_leak();
  const pipeline = await Pipeline.open({ model: goldenModel, devices: { device: "cpu" } });
  await pipeline.close();
});
