/**
 * Runs one request in its own pipeline: opened, used once and closed.
 */
import type { Model } from "../../models/model.ts";
import { type GenerateRequest, type GenerateResult, Pipeline } from "../../pipeline.ts";

/** On one CPU rank. */
export async function generateOnce(
  model: Model,
  request: GenerateRequest,
): Promise<GenerateResult> {
  const devices = { device: "cpu", rankCount: 1 } as const;
  await using pipeline = await Pipeline.open({ model, devices, first: request });
  return await pipeline.generate(request);
}
