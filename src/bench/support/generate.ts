/**
 * Runs one request in its own pipeline: opened, used once and closed.
 */
import type { ModelFolder } from "../../models/folder.ts";
import { type GenerateRequest, type GenerateResult, Pipeline } from "../../pipeline.ts";

/** On one CPU rank. */
export async function generateOnce(
  model: ModelFolder,
  request: GenerateRequest,
): Promise<GenerateResult> {
  const devices = { device: "cpu", rankCount: 1 } as const;
  await using pipeline = await Pipeline.open({ model, devices, first: request });
  return await pipeline.generate(request);
}
