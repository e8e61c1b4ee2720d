/**
 * Images that generation starts from, decoded: files of each format that is read, whose sums are
 * right more often than chance has it.
 */
import sharp from "sharp";
import { imageSizeOf } from "../../../src/image/encoder.ts";
import { readImage, readWithAlpha } from "../../../src/image/read.ts";
import { maskOf } from "../../../src/serve/dialects/mask-bytes.ts";
import { mutateBytes } from "../mutate.ts";
import { target } from "../target.ts";

// A case is no larger for having several threads.
sharp.concurrency(1);

const colours = Uint8Array.from({ length: 6 * 5 * 4 }, (_, i) => (37 * i) % 256);
const open = () => sharp(colours, { raw: { width: 6, height: 5, channels: 4 } });
const seeds: Buffer[] = await Promise.all([
  open().png().toBuffer(),
  open().png({ palette: true, progressive: true }).toBuffer(),
  open().toColourspace("rgb16").png().toBuffer(),
  open().toColourspace("b-w").png().toBuffer(),
  open()
    .jpeg({ progressive: true })
    .withExif({ IFD0: { Orientation: "6" } })
    .toBuffer(),
  open().webp({ lossless: true }).toBuffer(),
  open().webp().toBuffer(),
  open().tiff({ compression: "lzw" }).toBuffer(),
  open().gif().toBuffer(),
  open().avif({ effort: 0 }).toBuffer(),
]);
const readings = ["colours", "grey", "alpha", "mask", "size"] as const;

export const pixelTarget = target(
  "pixels",
  (random) => {
    // AVIF, the last one, takes ten times as long.
    const seed = random.once(200) ? seeds.at(-1)! : random.pick(seeds.slice(0, -1));
    const changed = mutateBytes(random, seed);
    // One of millions of pixels takes as long as hundreds of others.
    if (pixelCountOf(changed) > 2 ** 20 && !random.once(20)) withSizeOf(seed, changed);
    const bytes = random.once(4) ? changed : withRightSums(changed);
    return { reading: random.pick(readings), bytes };
  },
  async ({ reading, bytes }) => {
    const options = { name: "--image", background: "#ffffff" };
    if (reading === "size") await imageSizeOf(bytes);
    else if (reading === "alpha") await readWithAlpha(bytes, "--image");
    else if (reading === "mask") await maskOf(bytes, { from: "alpha-or-grey" });
    else {
      const channels = reading === "grey" ? 1 : 3;
      const { pixels, width, height } = await readImage(bytes, { ...options, channels });
      if (pixels.length !== width * height * channels) throw new Error("pixels are missing");
    }
  },
);

// --- internal ---

/** Where the sizes of a PNG and a GIF are. */
function sizesAt(bytes: Buffer): [begin: number, end: number] {
  if (bytes.length < 24) return [0, 0];
  const kind = bytes.readUInt32BE(0);
  if (kind === 0x89504e47) return [16, 24];
  return kind === 0x47494638 ? [6, 10] : [0, 0];
}

/** 0 where it is not told so easily. */
function pixelCountOf(bytes: Buffer): number {
  const [begin, end] = sizesAt(bytes);
  if (end === 24) return bytes.readUInt32BE(begin) * bytes.readUInt32BE(begin + 4);
  return end === 10 ? bytes.readUInt16LE(begin) * bytes.readUInt16LE(begin + 2) : 0;
}

function withSizeOf(seed: Buffer, bytes: Buffer): void {
  const [begin, end] = sizesAt(bytes);
  seed.copy(bytes, begin, begin, end);
}

/** Of a PNG's chunks, without which no decoder looks into them. */
function withRightSums(bytes: Buffer): Buffer {
  const isPng = bytes.length > 8 && bytes.readUInt32BE(0) === 0x89504e47;
  if (!isPng) return bytes;
  const right = Buffer.from(bytes);
  for (let at = 8; at + 12 <= right.length; ) {
    const end = at + 8 + right.readUInt32BE(at);
    if (end + 4 > right.length) break;
    right.writeUInt32BE(Bun.hash.crc32(right.subarray(at + 4, end)), end);
    at = end + 4;
  }
  return right;
}
