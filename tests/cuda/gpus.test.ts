/**
 * Images on each GPU that the emulator can be: limits of shared memory, registers and the machine
 * code that they take differ, the images do not. `BASEDXL_EMULATOR_GPU=sm_86 bun test tests/cuda`
 * runs all of the GPU path's tests on one of them.
 */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { setEmulatedCapability } from "../../src/native/testing.ts";
import { drawLatents } from "../support/draw.ts";
import { emulated } from "../support/emulator.ts";

setDefaultTimeout(120_000);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const work = { model, width: 32, height: 32, stepCount: 1 };
afterAll(() => setEmulatedCapability(0));
const expected = await drawLatents({ ...work, gpu: emulated() });

test.each([80, 86, 100, 120])("capability %d generates what 90 does", async (capability) => {
  setEmulatedCapability(capability);
  // The kernels are the same; only which of them fit may differ.
  const latents = await drawLatents({ ...work, gpu: emulated() });
  const off = latents.map((value, i) => Math.abs(value - (expected[i] ?? Number.NaN)));
  // f16 sums in another order.
  expect(Math.max(...off)).toBeLessThan(2e-2);
});
