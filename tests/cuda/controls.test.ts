/**
 * ControlNets and a T2I-Adapter on two ranks of the emulated driver: graphs as without, in f16 near
 * the CPU.
 */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { type GenerateRequest, Pipeline } from "../../src/pipeline.ts";
import { relativeL2 } from "../support/compare.ts";
import { controlHint } from "../support/control-hint.ts";
import { controlFolder, removeControls } from "../support/control-networks.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);
afterAll(removeControls);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const size = { width: 32, height: 64 };

const kinds = ["plain", "small", "adapter"] as const;

test("as on the CPU, with graphs and without", async () => {
  const rankCount = 2;
  const request: GenerateRequest = {
    ...{ prompt: "a red circle", seeds: [5n], stepCount: 3, ...size, guidanceScale: 1 },
    ...{ syncMode: "full_sync", wantLatents: true },
    controlnet: kinds.map((kind) => controlFolder(kind)),
    ...{ controlImage: [controlHint(size.width, size.height)], controlScale: [0.7] },
    controlStart: [0, 0.3, 0],
  };
  const latentsOn = async (device: "cpu" | "cuda-emulated", cudaGraphs: boolean) => {
    const devices = { device, rankCount, cudaGraphs, shareGpu: true };
    await using pipeline = await Pipeline.open({ model, devices, first: request });
    return (await pipeline.generate(request)).latents!;
  };
  const onCpu = await latentsOn("cpu", false);
  const eager = await latentsOn("cuda-emulated", false);
  const error = relativeL2(eager, onCpu);
  if (process.env.BASEDXL_SHOW_MEASURED) process.stderr.write(`${kinds} ${error}\n`);
  expect(error).toBeLessThanOrEqual(1e-2);
  expect(await latentsOn("cuda-emulated", true)).toEqual(eager);
});
