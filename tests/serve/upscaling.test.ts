/**
 * Images that are enlarged beside jobs: bounded, refused while no model is loaded, and stopped with
 * the server.
 */
import { expect, test } from "bun:test";
import { BasedXLError, cancelled } from "../../src/errors.ts";
import type { Pipeline, UpscaleOptions } from "../../src/pipeline.ts";
import { HttpError } from "../../src/serve/environment.ts";
import { QueueFull } from "../../src/serve/jobs/types.ts";
import { Upscaling } from "../../src/serve/upscaling.ts";

const image = { width: 2, height: 1, pixels: new Uint8Array(6) };
const asked = { upscaler: "sharp", size: { width: 4, height: 2 } };

/** It enlarges nothing until it is stopped. */
const stuck = {
  upscale: (_: unknown, { signal }: UpscaleOptions) =>
    new Promise((_, reject) => {
      signal!.addEventListener("abort", () => reject(cancelled()));
    }),
} as unknown as Pipeline;

function upscalingOn(pipeline: Pipeline | null, onLost: (lost: Pipeline) => void = () => {}) {
  return new Upscaling({ pool: { loadedPipeline: () => pipeline }, waitingMax: 1, onLost });
}

test("without a loaded model clients are to try again", async () => {
  const upscaling = upscalingOn(null);
  const refused = upscaling.upscale(image, asked);
  await expect(refused).rejects.toBeInstanceOf(HttpError);
  await expect(refused).rejects.toMatchObject({ status: 503 });
});

test("more than may wait are refused, and stopping ends those that wait", async () => {
  const upscaling = upscalingOn(stuck);
  const first = upscaling.upscale(image, asked);
  await expect(upscaling.upscale(image, asked)).rejects.toBeInstanceOf(QueueFull);
  upscaling.stop();
  await expect(first).rejects.toMatchObject({ code: "cancelled" });
});

test("a pipeline whose session is lost is told of, and one that only failed is not", async () => {
  const error = new BasedXLError("gpu-failed", "The GPU is gone.");
  const broken = { upscale: () => Promise.reject(error) } as unknown as Pipeline;
  const lost: Pipeline[] = [];
  const upscaling = upscalingOn(broken, (pipeline) => lost.push(pipeline));
  await expect(upscaling.upscale(image, asked)).rejects.toBe(error);
  expect(lost).toEqual([]);
  error.sessionLost = true;
  await expect(upscaling.upscale(image, asked)).rejects.toBe(error);
  expect(lost).toEqual([broken]);
});
