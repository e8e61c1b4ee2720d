/**
 * Images that say how they were made: PNG, JPEG, WebP and AVIF with texts of this program and of
 * others, as files that lie about themselves.
 */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { encodeExif } from "../../../src/image/exif.ts";
import { readTextsOf } from "../../../src/image/texts.ts";
import { writeImage } from "../../../src/image.ts";
import { inspectImage } from "../../../src/metadata.ts";
import { defaultPrompt } from "../../support/comfy-prompt.ts";
import { mutateBytes, mutateJson } from "../mutate.ts";
import type { Random } from "../random.ts";
import { target } from "../target.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-fuzz-"));
const pixels = new Uint8Array(8 * 8 * 3);
const own = JSON.stringify({ version: "0.1.0", settings: { prompt: "a", steps: 4, seed: "7" } });
const parameters = "a house\nNegative prompt: b\nSteps: 4, Sampler: Euler a, Seed: 7, Size: 8x8";
const seeds: Buffer[] = [];
for (const ending of ["png", "jpg", "webp", "avif"]) {
  const path = join(folder, `seed.${ending}`);
  await writeImage(path, pixels, 8, 8, { texts: { parameters, own } });
  seeds.push(Buffer.from(await Bun.file(path).bytes()));
}
const exif = Buffer.from(encodeExif({ parameters, own }));
const plain = sharp({ create: { width: 8, height: 8, channels: 3, background: "#fff" } });
seeds.push(
  await plain
    .png()
    .withExifMerge({ IFD0: { UserComment: "a" } })
    .toBuffer(),
);

/** Half of the changes are in EXIF's own numbers, which decide where texts are. */
function image(random: Random): Buffer {
  const seed = random.pick(seeds);
  const at = seed.indexOf(exif.subarray(0, 8));
  if (at < 0 || random.once(2)) return mutateBytes(random, seed);
  const [before, after] = [seed.subarray(0, at), seed.subarray(at + exif.length)];
  return Buffer.concat([before, mutateBytes(random, exif).subarray(0, exif.length), after]);
}

export const imageTarget = target("images", image, (bytes) => readTextsOf(bytes));

const workflows: Record<string, unknown>[] = [
  { prompt: defaultPrompt() },
  { parameters: { sui_image_params: { prompt: "a", model: "m", seed: 1, steps: 2, cfgscale: 3 } } },
  { parameters: { Prompt: "a", Steps: 4, Seed: 1, loras: [["a", 1]], version: "Fooocus v2" } },
  { parameters: { prompt: "a", loras: [["x", 0.5, "hash"]], resolution: "(64, 64)", seed: "9" } },
  { basedxl: JSON.parse(own) },
];
const names = ["prompt", "workflow", "parameters", "basedxl", "invokeai_metadata"];

/** JSON of a program in a PNG's texts. */
export const recipeTarget = target(
  "recipes",
  (random) => {
    const [[name, json] = ["prompt", {}]] = Object.entries(random.pick(workflows));
    return {
      keyword: random.once(10) ? random.pick(names) : name,
      text: mutateJson(random, json, ["inputs", "class_type", "seed", "model", "loras"]),
    };
  },
  ({ keyword, text }) => {
    const path = join(folder, "recipe.png");
    writeFileSync(path, withText(seeds[4]!, keyword, text));
    inspectImage(path);
  },
);

function withText(png: Buffer, keyword: string, text: string): Buffer {
  const data = Buffer.from(`iTXt${keyword}\0\0\0\0\0${text.toWellFormed()}`);
  const chunk = Buffer.alloc(8 + data.length);
  chunk.writeUInt32BE(data.length - 4);
  data.copy(chunk, 4);
  chunk.writeUInt32BE(Bun.hash.crc32(data), 4 + data.length);
  return Buffer.concat([png.subarray(0, 33), chunk, png.subarray(33)]);
}
