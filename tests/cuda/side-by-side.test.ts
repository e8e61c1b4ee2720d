/**
 * Two pipelines of one process side by side, each on GPUs of its own, as `serve --share 2x2` opens
 * them.
 */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { setEmulatedGpuCount } from "../../src/native/testing.ts";
import { Pipeline, type PreparedPipeline, preparePipeline } from "../../src/pipeline.ts";
import { emulated } from "../support/emulator.ts";
import { refusal } from "../support/refusal.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);

setEmulatedGpuCount(4);
afterAll(() => setEmulatedGpuCount(2));

test("they generate the same image, and no GPU is there for a third", async () => {
  const first = { stepCount: 2, seeds: [7n], width: 64, height: 64 };
  const prepared = await preparePipeline({ devices: { device: "cpu", rankCount: 2 }, first });
  const at = (gpuFirst: number): PreparedPipeline => {
    const gpu = emulated({ share: false, gpuFirst });
    return { ...prepared, devices: { ...prepared.devices, device: "cuda", dtype: "f32", gpu } };
  };
  await using one = await Pipeline.load(at(0));
  await using two = await Pipeline.load(at(2));
  const [a, b] = await Promise.all([one.generate(first), two.generate(first)]);
  expect(a.images[0]?.pixels).toEqual(b.images[0]!.pixels);
  expect(await refusal(() => Pipeline.load(at(3)), "gpu-failed")).toContain(
    "2 ranks would start at GPU 3 (by LOCAL_RANK or --share), and the driver shows 4",
  );
});
