/**
 * The error of an image decoded in tiles against the same latents decoded whole, for the figures in
 * the help and warning of `--vae-tiling`, their test, and `bun run bench tiling`.
 */

import type { Model } from "../../models/model.ts";
import { nativeModelOf } from "../../models/native-model.ts";
import { ModelParts } from "../../native/testing.ts";
import { tileLatent } from "../../pipeline/vae-tiling.ts";
import { type Image, psnr } from "../image-measures.ts";
import { maxAbs } from "./compare.ts";
import { generateOnce } from "./generate.ts";

interface TilingCase {
  prompt: string;
  seed: bigint;
  /** Width and height in pixels. */
  side: number;
  stepCount: number;
}

interface TilingError {
  psnr: number;
  /** The largest difference of a colour channel, in levels of 255. */
  levels: number;
  wholeMs: number;
  tilesMs: number;
}

/** The measured images: scenes in the bundled model's language. */
export const tilingImages = [
  { prompt: "a red house left of a green tree on the grass", seed: 42n },
  { prompt: "a large orange cat on a purple background", seed: 43n },
  { prompt: "a purple diamond in the desert at sunset", seed: 44n },
] as const;

/** Generates one image's latents with Euler and decodes them both ways. */
export async function measureTiling(model: Model, one: TilingCase): Promise<TilingError> {
  const { side, prompt, seed, stepCount } = one;
  const result = await generateOnce(model, {
    prompt,
    negativePrompt: null,
    seeds: [seed],
    batchSize: 1,
    guidanceScale: model.defaults.guidanceScale ?? 5,
    stepCount,
    width: side,
    height: side,
    scheduler: "euler",
    useKarrasSigmas: undefined,
    timestepSpacing: undefined,
    splitBatch: true,
    syncMode: "full_sync",
    warmupSteps: 0,
    wantLatents: true,
  });
  const { latents, latentShape } = result;
  const [, , rows, columns] = latentShape;
  const scaled = (latents ?? new Float32Array()).map((value) => value / model.vae.scalingFactor);
  const parts = await ModelParts.open(nativeModelOf(model));
  try {
    const whole = await parts.decode(scaled, rows, columns);
    const tiles = await parts.decode(scaled, rows, columns, tileLatent(model));
    const image = (pixels: Uint8Array): Image => ({ pixels, width: side, height: side });
    return {
      psnr: psnr(image(tiles.rgb), image(whole.rgb)),
      levels: maxAbs(tiles.rgb, whole.rgb),
      wholeMs: whole.milliseconds,
      tilesMs: tiles.milliseconds,
    };
  } finally {
    await parts.close();
  }
}
