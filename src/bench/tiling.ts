/**
 * `bun run bench tiling`: images decoded in tiles against the same latents decoded whole, at one
 * and a half and two times the side of a tile. The figures in the help of `--vae-tiling` are from
 * this bench.
 */

import { resolveModelPath } from "../models/locate.ts";
import { openModel } from "../models/open.ts";
import { tileLatent } from "../pipeline/vae-tiling.ts";
import { measureTiling, tilingImages } from "./support/tiling.ts";

/** `args`: nothing, or `--model FOLDER` for another model than the bundled one. */
export async function run(args: string[]): Promise<number> {
  const [flag, folder] = args;
  if (flag !== undefined && (flag !== "--model" || folder === undefined || args.length > 2)) {
    process.stderr.write("Usage: bun run bench tiling [--model FOLDER]\n");
    return 2;
  }
  const model = await openModel((await resolveModelPath(folder, { env: {} })).path);
  const tile = tileLatent(model) * model.vaeFactor;
  const stepCount = model.defaults.steps ?? 25;
  const all: number[] = [];
  print(`${model.name}, tiles of ${tile}x${tile}`);
  print("side  seed  PSNR dB  levels  whole ms  tiles ms  prompt");
  for (const side of [1.5 * tile, 2 * tile]) {
    for (const { prompt, seed } of tilingImages) {
      const error = await measureTiling(model, { prompt, seed, side, stepCount });
      all.push(error.psnr);
      const cells = [
        String(side).padStart(4),
        String(seed).padStart(4),
        error.psnr.toFixed(1).padStart(7),
        String(error.levels).padStart(6),
        error.wholeMs.toFixed(0).padStart(8),
        error.tilesMs.toFixed(0).padStart(8),
        prompt,
      ];
      print(cells.join("  "));
    }
  }
  print(`PSNR ${Math.min(...all).toFixed(1)} to ${Math.max(...all).toFixed(1)} dB.`);
  return 0;
}

// --- internal ---

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
