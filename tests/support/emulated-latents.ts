/**
 * Whether a request's latents are the same on the CPU and on an emulated GPU, with graphs of the
 * steps and without.
 */
import { expect } from "bun:test";
import type { Model } from "../../src/models/model.ts";
import { type GenerateRequest, Pipeline } from "../../src/pipeline.ts";
import { relativeL2 } from "./compare.ts";
import { measured } from "./measured.ts";

const allowed = 1e-2;

/** On two ranks, and near those of the CPU, as f16 allows. */
export async function expectAsOnCpu(model: Model, request: GenerateRequest): Promise<void> {
  const latentsOn = async (device: "cpu" | "cuda-emulated", cudaGraphs: boolean) => {
    const devices = { device, rankCount: 2, cudaGraphs, shareGpu: true };
    await using pipeline = await Pipeline.open({ model, devices, first: request });
    return (await pipeline.generate(request)).latents!;
  };
  const onCpu = await latentsOn("cpu", false);
  const eager = await latentsOn("cuda-emulated", false);
  expect(measured("emulated GPU", relativeL2(eager, onCpu), allowed)).toBeLessThanOrEqual(allowed);
  expect(await latentsOn("cuda-emulated", true)).toEqual(eager);
}
