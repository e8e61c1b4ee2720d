/**
 * Images that say they are larger than they are, or unpack to more than they say: read or refused
 * in one sentence, without the memory that they ask for.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { crc32, deflateSync } from "node:zlib";
import { readImage } from "../../src/image/read.ts";

// The cores may be busy.
setDefaultTimeout(60_000);

const bombBytes = 256 << 20;
/** What a read may take: far less than a bomb, and more than sharp takes for a small image. */
const grownMax = 128 << 20;
const bomb = deflateSync(Buffer.alloc(bombBytes), { level: 1 });
const fewPixels = deflateSync(Buffer.alloc(8 * 25));
const read = { name: "image", channels: 3, background: "#ffffff" } as const;

const named = (data: Uint8Array) => Buffer.concat([Buffer.from("name\0\0"), data]);
test.each([
  ["65535x65535 pixels", png(65535, 65535, fewPixels), "has 65535x65535 pixels"],
  ["2147483647 columns", png(2 ** 31 - 1, 1, fewPixels), /pixels|cannot be read/],
  ["300 channels", tiff(2000, 2000, 300), "cannot be read as an image"],
  ["a strip that is not there", tiff(11000, 11000, 3), "cannot be read as an image"],
  ["more rows than it says", png(8, 8, bomb), null],
  ["a colour profile", png(8, 8, fewPixels, [chunk("iCCP", named(bomb))]), null],
  ["a text", png(8, 8, fewPixels, [chunk("zTXt", named(bomb))]), null],
  ["100000 columns and one row", png(100000, 1, deflateSync(Buffer.alloc(300001))), null],
])("%s", async (_, bytes, refused) => {
  // Loads sharp, which counts for no image.
  await readImage(png(8, 8, fewPixels), read);
  const before = resetPeak();
  const message = await readImage(bytes, read).then(
    () => null,
    (error: Error) => error.message,
  );
  if (refused === null) expect(message).toBeNull();
  else expect(message).toMatch(refused);
  if (process.platform === "linux") expect(peak() - before).toBeLessThan(grownMax);
});

/** The memory that this process has; from here on `peak` counts anew. */
function resetPeak(): number {
  if (process.platform === "linux") writeFileSync("/proc/self/clear_refs", "5");
  return peak();
}

/** The most memory since, in bytes. */
function peak(): number {
  if (process.platform !== "linux") return 0;
  const status = readFileSync("/proc/self/status", "utf8");
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

function chunk(type: string, data: Uint8Array): Buffer {
  const bytes = Buffer.alloc(12 + data.length);
  bytes.writeUInt32BE(data.length, 0);
  bytes.write(type, 4, "latin1");
  bytes.set(data, 8);
  bytes.writeUInt32BE(crc32(bytes.subarray(4, 8 + data.length)), 8 + data.length);
  return bytes;
}

/** RGB of 8 bits. */
function png(width: number, height: number, packed: Uint8Array, others: Buffer[] = []): Buffer {
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head[8] = 8;
  head[9] = 2;
  const start = Buffer.from("89504e470d0a1a0a", "hex");
  const end = [chunk("IDAT", packed), chunk("IEND", Buffer.alloc(0))];
  return Buffer.concat([start, chunk("IHDR", head), ...others, ...end]);
}

/** One strip, packed, that holds a few zeros. */
function tiff(width: number, height: number, channels: number): Buffer {
  const strip = deflateSync(Buffer.alloc(100));
  const entries = 9;
  const end = 8 + 2 + 12 * entries + 4;
  const bits = Buffer.alloc(2 * channels, new Uint8Array([8, 0]));
  const fields: [tag: number, type: number, count: number, value: number][] = [
    [256, 4, 1, width],
    [257, 4, 1, height],
    [258, 3, channels, end],
    [259, 3, 1, 8],
    [262, 3, 1, 2],
    [273, 4, 1, end + bits.length],
    [277, 3, 1, channels],
    [278, 4, 1, height],
    [279, 4, 1, strip.length],
  ];
  const head = Buffer.alloc(end);
  head.write("II*\0", 0, "latin1");
  head.writeUInt32LE(8, 4);
  head.writeUInt16LE(entries, 8);
  for (const [i, [tag, type, count, value]] of fields.entries()) {
    head.writeUInt16LE(tag, 10 + 12 * i);
    head.writeUInt16LE(type, 12 + 12 * i);
    head.writeUInt32LE(count, 14 + 12 * i);
    head.writeUInt32LE(value, 18 + 12 * i);
  }
  return Buffer.concat([head, bits, strip]);
}
