/**
 * Reuse of steps against DeepCache and T-GATE written with diffusers' UNet
 * (tests/reference/make_reuse.py): values at places spread over the latents.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { generateOnce } from "../../src/bench/support/generate.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import reference from "../fixtures/reuse.json";

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));

test.each(reference.runs)("$name", async ({ interval, branch, gate, probes }) => {
  const { side, steps, seed } = reference;
  const { latents } = await generateOnce(model, {
    prompt: "a red circle",
    negativePrompt: "blurry",
    width: side,
    height: side,
    stepCount: steps,
    guidanceScale: 5,
    seeds: [BigInt(seed)],
    wantLatents: true,
    deepCache: String(interval),
    deepCacheBranch: branch,
    crossAttentionGate: gate,
  });
  for (const [i, expected] of probes.entries()) {
    const place = Math.floor((i * (latents!.length - 1)) / (probes.length - 1));
    const scale = Math.max(1, Math.abs(expected));
    expect(Math.abs(latents![place]! - expected) / scale).toBeLessThanOrEqual(1e-4);
  }
});
