/**
 * The jobs for which ThreadSanitizer looks at the GPU path and at the emulated driver below it:
 * ranks on one, two and four GPUs, with CUDA graphs and without, over both transports, several jobs
 * in a session, some of them cancelled, and two sessions side by side.
 */
import { join } from "node:path";
import { goldenModel, writeGoldenModel } from "../../src/bench/support/golden-model.ts";
import { writeRandomLora } from "../../src/bench/support/random-lora.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { setEmulatedGpuCount } from "../../src/native/testing.ts";
import { Pipeline, type PreparedPipeline, preparePipeline } from "../../src/pipeline.ts";
import { type Run, recorded, side, usual } from "./jobs.ts";
import type { Recorder } from "./record.ts";

export const gpuCount = 4;

export async function recordGpus(recorder: Recorder, folder: string): Promise<void> {
  writeGoldenModel();
  setEmulatedGpuCount(gpuCount);
  const lora = join(folder, "gpu-lora.safetensors");
  writeRandomLora(lora, await openModelFolder(goldenModel), /attn\d\.to_|conv1$/);
  await recordGpu(recorder, { rankCount: 1, cudaGraphs: true }, async (run) => {
    await run("LoRA", { loras: [{ file: lora, scale: 0.7 }] });
    await run("batch with previews", { seeds: [1n, 2n] }, { previewSteps: 1 });
  });
  const image = (run: Run) => run("image", {});
  await recordGpu(recorder, { rankCount: 1, cudaGraphs: false }, image);
  for (const transport of ["peer", "nccl"] as const) {
    await recordGpu(recorder, { rankCount: 2, transport, cudaGraphs: true }, async (run) => {
      await cancelled(run, { stepCount: 8 });
      await run("full_sync", { syncMode: "full_sync" });
      await run("8 bits", { compressExchange: "int8" });
    });
    await recordGpu(recorder, { rankCount: 2, transport, cudaGraphs: false }, async (run) => {
      await cancelled(run, { stepCount: 8 });
      await run("image", {});
    });
    await recordGpu(recorder, { rankCount: 4, transport, cudaGraphs: true }, image);
  }
  await recordSideBySide(recorder);
}

// --- internal ---

interface Gpus {
  rankCount: number;
  cudaGraphs: boolean;
  transport?: "peer" | "nccl";
}

async function recordGpu(
  recorder: Recorder,
  gpus: Gpus,
  use: (run: Run) => Promise<void>,
): Promise<void> {
  const { rankCount, cudaGraphs, transport = "auto" } = gpus;
  const graphs = cudaGraphs ? "graphs" : "no graphs";
  await recorded(
    recorder,
    {
      name: `${rankCount} GPUs, ${transport}, ${graphs}`,
      model: goldenModel,
      first: { ...usual, height: (side / 2) * Math.max(2, rankCount) },
      devices: { device: "cuda-emulated", ...gpus },
    },
    use,
  );
}

/** A job that is cancelled in its steps: the next must go on in what it left. */
async function cancelled(run: Run, changes: Parameters<Run>[1]): Promise<void> {
  const controller = new AbortController();
  const { signal } = controller;
  const onEvent: NonNullable<Parameters<Run>[2]>["onEvent"] = (event) => {
    if (event.type === "progress" && event.stepIndex > 0) controller.abort();
  };
  try {
    await run("cancelled", changes, { signal, onEvent });
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

/** Two sessions of a process, each on GPUs of its own, that load and generate at the same time. */
async function recordSideBySide(recorder: Recorder): Promise<void> {
  recorder.name = "two sessions side by side";
  const devices = { device: "cuda-emulated", rankCount: 2 } as const;
  const prepared = await preparePipeline({ model: goldenModel, first: usual, devices });
  const at = (gpuFirst: number): PreparedPipeline => {
    const gpu = { ...prepared.devices.gpu!, gpuFirst };
    return { ...prepared, devices: { ...prepared.devices, gpu } };
  };
  const both = await Promise.all([0, 2].map((gpuFirst) => Pipeline.load(at(gpuFirst))));
  for (const seed of [7n, 8n]) {
    await Promise.all(both.map((pipeline) => pipeline.generate({ ...usual, seeds: [seed] })));
  }
  await Promise.all(both.map((pipeline) => pipeline.close()));
}
