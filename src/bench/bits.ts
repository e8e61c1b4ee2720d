/**
 * `bun run bench bits`: a hash of the pixels and latents of twelve CPU runs over sizes, batches,
 * sync modes, 1 to 8 ranks and tiling, by the command line. `--clone FOLDER` runs them in another
 * clone: two versions that print the same lines generate the same bits. The hashes depend on the
 * CPU's kernels, so they are compared between clones, never with recorded ones.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BasedXLError } from "../errors.ts";
import { repositoryRoot } from "../setup.ts";
import { goldenModel } from "./support/golden-model.ts";

/** `args`: nothing, or `--clone FOLDER`. */
export async function run(args: string[]): Promise<number> {
  const [flag, clone = repositoryRoot] = args;
  if (flag !== undefined && (flag !== "--clone" || args.length !== 2)) {
    process.stderr.write("Usage: bun run bench bits [--clone FOLDER]\n");
    return 2;
  }
  const folder = mkdtempSync(join(tmpdir(), "basedxl-bits-"));
  try {
    for (const [index, flags] of runs.entries()) {
      const name = `run-${String(index + 1).padStart(2, "0")}`;
      await generate(clone, join(folder, name), flags);
      for (const file of readdirSync(folder).sort()) {
        if (!file.startsWith(name)) continue;
        process.stdout.write(`${await hashOf(join(folder, file))}  ${file}  ${flags}\n`);
      }
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  return 0;
}

// --- internal ---

/** Flags that every version since 0.1.0 takes; GOLDEN stands for the golden model's folder. */
const runs = [
  "--seed 42 --gpus 1",
  "--seed 1 --gpus 2 --steps 8 --sync-mode full_sync",
  "--seed 2 --gpus 2 --no-split-batch --steps 10",
  "--seed 3 --gpus 4 --steps 10 --sync-mode stale_gn --width 320 --height 192",
  "--seed 4 --gpus 4 --no-split-batch --steps 10 --sync-mode sync_gn --num-images 2 --batch-size 2",
  "--seed 5 --gpus 8 --steps 12 --sync-mode corrected_async_gn --warmup-steps 1",
  "--seed 6 --gpus 3 --steps 7 --sync-mode separate_gn --scheduler euler_a",
  "--seed 7 --gpus 5 --steps 7 --sync-mode no_sync --scheduler ddim --guidance-rescale 0.5",
  "--seed 8 --gpus 1 --vae-tiling --width 512 --height 384 --steps 4 --rng cuda",
  "--model GOLDEN --seed 9 --gpus 4 --width 64 --height 64 --steps 6 --num-images 3 --batch-size 2",
  "--model GOLDEN --seed 10 --gpus 8 --no-split-batch --width 64 --height 256 --steps 6 " +
    "--use-karras-sigmas --warmup-steps 0",
  "--model GOLDEN --seed 11 --gpus 1 --width 96 --height 64 --steps 5 --guidance-scale 1",
];

async function generate(clone: string, path: string, flags: string): Promise<void> {
  const main = join(clone, "src/main.ts");
  const files = ["--out", `${path}.png`, "--save-latents", `${path}.safetensors`];
  const given = flags.split(" ").map((word) => (word === "GOLDEN" ? goldenModel : word));
  const words = [...given, "--prompt", "a red house", "--device", "cpu", "--quiet"];
  const child = Bun.spawn([process.execPath, main, "sample", ...words, ...files], {
    env: { ...process.env, BASEDXL_MODEL: undefined },
    stdout: "ignore",
    stderr: "inherit",
  });
  if ((await child.exited) === 0) return;
  throw new BasedXLError("internal", `The run with ${flags} failed in ${clone}.`);
}

/** Of an image's pixels, whatever its encoder; of other files' bytes. */
async function hashOf(path: string): Promise<string> {
  const { default: sharp } = await import("sharp");
  const isImage = path.endsWith(".png");
  const bytes = isImage ? await sharp(path).raw().toBuffer() : readFileSync(path);
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex").slice(0, 32);
}
