/**
 * How far a image decoded in tiles is from the same image decoded whole: what the help and the
 * warning of `--vae-tiling` state, for its test and for `bun run bench tiling`.
 */

import type { ModelFolder } from "../../models/folder.ts";
import { nativeModelOf } from "../../models/native-model.ts";
import { ModelParts } from "../../native/testing.ts";
import { tileLatent } from "../../pipeline/vae-tiling.ts";
import { type Image, psnr } from "../image-measures.ts";
import { maxAbs } from "./compare.ts";
import { generateOnce } from "./generate.ts";

export interface TilingCase {
  prompt: string;
  seed: bigint;
  /** Width and height in pixels. */
  side: number;
  stepCount: number;
}

export interface TilingError {
  psnr: number;
  /** The largest difference of a colour, in levels of 255. */
  levels: number;
  wholeMs: number;
  tilesMs: number;
}

/** The images that measure it: scenes in the bundled model's language. */
export const tilingImages = [
  { prompt: "a red house left of a green tree on the grass", seed: 42n },
  { prompt: "a large orange cat on a purple background", seed: 43n },
  { prompt: "a purple diamond in the desert at sunset", seed: 44n },
] as const;

/** Draws one image's latent with Euler and decodes it both ways. */
export async function measureTiling(model: ModelFolder, one: TilingCase): Promise<TilingError> {
  const { side, prompt, seed, stepCount } = one;
  const drawn = await generateOnce(model, {
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
  const { latents, latentShape } = drawn;
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
