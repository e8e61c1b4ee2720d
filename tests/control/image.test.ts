/**
 * Image files: the pixels written are those given, and writes are atomic.
 * Lossless means equal bytes; the other formats are held to a mean error that their settings reach.
 */
import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import sharp from "sharp";
import { BasedXLError } from "../../src/errors.ts";
import { writeWhole } from "../../src/image/files.ts";
import { thumbnailOf } from "../../src/image/thumbnail.ts";
import { checkImageSize, checkWritable, imageFormatOf, writeImage } from "../../src/image.ts";
import { refusal } from "../support/refusal.ts";

const root = mkdtempSync(join(tmpdir(), "basedxl-image-"));
let folder = "";
let count = 0;
beforeEach(() => {
  folder = join(root, `case-${count++}`);
  mkdirSync(folder);
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const width = 48;
const height = 32;
/** Smooth colours that differ in all three channels and both directions. */
const pixels = Uint8Array.from({ length: width * height * 3 }, (_, i) => {
  const [x, y, channel] = [Math.floor(i / 3) % width, Math.floor(i / 3 / width), i % 3];
  return [x * 5, y * 7, 255 - x * 2 - y * 3][channel]!;
});

test("the image library keeps nothing of images that were written or read", async () => {
  const path = join(folder, "image.png");
  await writeImage(path, pixels, width, height);
  expect((await thumbnailOf(path, 16))?.type).toBe("image/webp");
  expect(sharp.cache().items.current).toBe(0);
});

describe("formats", () => {
  for (const [ending, format, meanErrorMax] of [
    ["png", "png", 0],
    ["PNG", "png", 0],
    ["jpg", "jpeg", 1.5],
    ["jpeg", "jpeg", 1.5],
    ["webp", "webp", 3],
    ["avif", "heif", 3],
  ] as const) {
    test(`.${ending} holds the image`, async () => {
      const path = join(folder, `image.${ending}`);
      await writeImage(path, pixels, width, height);
      const image = sharp(readFileSync(path));
      const { format: found, ...metadata } = await image.metadata();
      expect([found, metadata.width, metadata.height]).toEqual([format, width, height]);
      const { data } = await image.removeAlpha().raw().toBuffer({ resolveWithObject: true });
      expect(data).toHaveLength(pixels.length);
      const sum = pixels.reduce((total, value, i) => total + Math.abs(value - data[i]!), 0);
      expect(sum / pixels.length).toBeLessThanOrEqual(meanErrorMax);
      expect(readdirSync(folder)).toEqual([`image.${ending}`]);
    });
  }

  test("JPEG keeps colour at full resolution", async () => {
    const path = join(folder, "a.jpg");
    await writeImage(path, pixels, width, height);
    expect((await sharp(path).metadata()).chromaSubsampling).toBe("4:4:4");
  });

  test("an unknown ending names the known ones", async () => {
    const message = await refusal(() => imageFormatOf("out/sample.gif"), "bad-option");
    expect(message).toMatch(
      /has the ending \.gif; use one of \.png, \.jpg, \.jpeg, \.webp, \.avif/,
    );
  });

  test("no ending, also where a folder has a dot", async () => {
    const message = await refusal(() => imageFormatOf("out.png/sample"), "bad-option");
    expect(message).toMatch(/^The image out\.png\/sample has no ending; use one of/);
  });

  test("sizes that a format cannot hold", async () => {
    checkImageSize("a.webp", 16383, 16383);
    checkImageSize("a.png", 100_000, 64);
    const webp = await refusal(() => checkImageSize("a.webp", 16384, 64), "bad-option");
    expect(webp).toBe(
      "A webp file holds at most 16383 pixels a side, and the image is 16384x64; " +
        "write a .png file instead.",
    );
    const jpeg = await refusal(() => checkImageSize("a.jpg", 64, 65504), "bad-option");
    expect(jpeg).toMatch(/at most 65500 pixels a side/);
    const avif = await refusal(() => checkImageSize("a.avif", 16416, 64), "bad-option");
    expect(avif).toMatch(/at most 16384 pixels a side/);
  });

  test("pixels of another size are a bug, not a user's mistake", async () => {
    const thrown = await writeImage(join(folder, "a.png"), pixels, width, width).catch((e) => e);
    expect(thrown).not.toBeInstanceOf(BasedXLError);
    expect(thrown.message).toBe("4608 bytes of pixels for 48x48 RGB");
  });
});

describe("whole files", () => {
  const bytes = (text: string) => new TextEncoder().encode(text);

  test("an existing file is replaced, and nothing else is left", async () => {
    const path = join(folder, "a.bin");
    writeFileSync(path, "old and longer");
    await writeWhole(path, bytes("new"));
    expect(readFileSync(path, "utf8")).toBe("new");
    expect(readdirSync(folder)).toEqual(["a.bin"]);
  });

  test("an image that cannot be encoded leaves the old file as it was", async () => {
    const path = join(folder, "a.webp");
    writeFileSync(path, "old");
    const side = 16384;
    await refusal(() => writeImage(path, new Uint8Array(side * 3), side, 1), "bad-option");
    expect(readFileSync(path, "utf8")).toBe("old");
    expect(readdirSync(folder)).toEqual(["a.webp"]);
  });

  test("a stop while the image is encoded is at once and leaves the old file", async () => {
    const path = join(folder, "a.avif");
    writeFileSync(path, "old");
    const side = 1024;
    const noise = crypto.getRandomValues.bind(crypto);
    const large = new Uint8Array(side * side * 3);
    for (let i = 0; i < large.length; i += 65536) noise(large.subarray(i, i + 65536));
    const controller = new AbortController();
    const writing = refusal(
      () => writeImage(path, large, side, side, { signal: controller.signal }),
      "cancelled",
    );
    await Bun.sleep(20);
    const stopMs = performance.now();
    controller.abort();
    await writing;
    expect(performance.now() - stopMs).toBeLessThan(500);
    expect(readFileSync(path, "utf8")).toBe("old");
    expect(readdirSync(folder)).toEqual(["a.avif"]);
  });

  test("a stop before the rename leaves nothing", async () => {
    const path = join(folder, "a.bin");
    await refusal(() => writeWhole(path, bytes("new"), AbortSignal.abort()), "cancelled");
    expect(readdirSync(folder)).toEqual([]);
  });

  test("behind a link its target is replaced, and the link stays", async () => {
    mkdirSync(join(folder, "far"));
    writeFileSync(join(folder, "far", "target.bin"), "old");
    symlinkSync(join("far", "target.bin"), join(folder, "link.bin"));
    await writeWhole(join(folder, "link.bin"), bytes("new"));
    expect(readFileSync(join(folder, "far", "target.bin"), "utf8")).toBe("new");
    expect(readlinkSync(join(folder, "link.bin"))).toBe(join("far", "target.bin"));
    expect(readdirSync(join(folder, "far"))).toEqual(["target.bin"]);
  });

  test("behind links to what is not there yet it is made, and the links stay", async () => {
    mkdirSync(join(folder, "far/deep"), { recursive: true });
    symlinkSync("far/deep", join(folder, "way"));
    symlinkSync("way/../second.bin", join(folder, "first.bin"));
    symlinkSync(join(folder, "far", "target.bin"), join(folder, "far", "second.bin"));
    expect(checkWritable(join(folder, "first.bin"))).toBe(join(folder, "far", "target.bin"));
    await writeWhole(join(folder, "first.bin"), bytes("new"));
    expect(readFileSync(join(folder, "far", "target.bin"), "utf8")).toBe("new");
    expect(lstatSync(join(folder, "first.bin")).isSymbolicLink()).toBe(true);
    expect(lstatSync(join(folder, "far", "second.bin")).isSymbolicLink()).toBe(true);
    symlinkSync("no/a.bin", join(folder, "lost.bin"));
    expect(await refusal(() => checkWritable(join(folder, "lost.bin")), "io")).toMatch(
      /the folder .*\/no does not exist/,
    );
  });

  test("what is replaced keeps its mode, and a new file has the usual one", async () => {
    const path = join(folder, "a.bin");
    for (const mode of [0o600, 0o640, 0o666, 0o755]) {
      writeFileSync(path, "old");
      chmodSync(path, mode);
      await writeWhole(path, bytes("new"));
      expect(statSync(path).mode & 0o7777).toBe(mode);
    }
    await writeWhole(join(folder, "b.bin"), bytes("new"));
    expect(statSync(join(folder, "b.bin")).mode & 0o777).toBe(0o666 & ~process.umask());
  });

  // Only root may give a file to somebody else.
  test.skipIf(process.getuid?.() !== 0)("what is replaced keeps its owner and group", async () => {
    const path = join(folder, "a.bin");
    writeFileSync(path, "old");
    chownSync(path, 1234, 4321);
    chmodSync(path, 0o4750);
    await writeWhole(path, bytes("new"));
    const { uid, gid, mode } = statSync(path);
    expect([uid, gid, mode & 0o7777]).toEqual([1234, 4321, 0o4750]);
  });

  test("writers at the same time leave one whole file", async () => {
    const path = join(folder, "a.bin");
    const contents = Array.from({ length: 8 }, (_, i) => `${i}`.repeat(100_000));
    await Promise.all(contents.map((content) => writeWhole(path, bytes(content))));
    expect(contents).toContain(readFileSync(path, "utf8"));
    expect(readdirSync(folder)).toEqual(["a.bin"]);
  });

  test("a name as long as the system allows", async () => {
    const name = `${"é".repeat(125)}.png`;
    await writeWhole(join(folder, name), bytes("x"));
    expect(existsSync(join(folder, name))).toBe(true);
  });
});

describe("places that cannot be written", () => {
  test("a folder that does not exist", async () => {
    const path = join(folder, "no", "a.png");
    const message = await refusal(() => checkWritable(path), "io");
    expect(message).toBe(`Cannot write ${path}: the folder ${join(folder, "no")} does not exist.`);
    expect(await refusal(() => writeImage(path, pixels, width, height), "io")).toBe(message);
  });

  test("a folder in place of the file", async () => {
    mkdirSync(join(folder, "a.png"));
    const message = await refusal(() => checkWritable(join(folder, "a.png")), "io");
    expect(message).toMatch(/it is a folder; name a file in it/);
    expect(await refusal(() => checkWritable(`${folder}/new/`), "io")).toMatch(/it is a folder/);
    expect(await refusal(() => checkWritable(""), "io")).toMatch(
      /^Cannot write "": it is a folder/,
    );
  });

  // Only root can give a file to another user.
  test.skipIf(process.geteuid?.() !== 0)("another user's file in a sticky folder", async () => {
    chmodSync(root, 0o755);
    chownSync(folder, 65533, 65533);
    chmodSync(folder, 0o1777);
    const path = join(folder, "theirs.png");
    writeFileSync(path, "theirs");
    // Writable for all, but not theirs to replace.
    chmodSync(path, 0o666);
    process.seteuid?.(65534);
    try {
      const message = await refusal(() => checkWritable(path), "io");
      expect(message).toBe(`Cannot write ${path}: the file that is there belongs to another user.`);
      expect(checkWritable(join(folder, "mine.png"))).toBe(join(folder, "mine.png"));
    } finally {
      process.seteuid?.(0);
    }
  });

  test("a device in place of the file", async () => {
    symlinkSync("/dev/null", join(folder, "a.png"));
    const message = await refusal(() => checkWritable(join(folder, "a.png")), "io");
    expect(message).toMatch(/a device is there already/);
  });

  test.each([
    ["/dev/full", "a device"],
    ["pipe", "a pipe"],
    ["socket", "a socket"],
    ["link to a pipe", "a pipe"],
  ])("%s in place of the file", async (name, what) => {
    const pipe = join(folder, "pipe");
    expect(Bun.spawnSync(["mkfifo", pipe]).exitCode).toBe(0);
    symlinkSync("pipe", join(folder, "link to a pipe"));
    const socket = Bun.listen({ unix: join(folder, "socket"), socket: { data: () => {} } });
    try {
      const path = resolve(folder, name);
      // Nobody reads the pipe: to open it would take forever.
      expect(await refusal(() => writeWhole(path, pixels), "io")).toBe(
        `Cannot write ${path}: ${what} is there already.`,
      );
    } finally {
      socket.stop();
    }
    expect(readdirSync(folder).filter((each) => each.startsWith("."))).toEqual([]);
  });

  test("a file in place of the folder", async () => {
    writeFileSync(join(folder, "file"), "");
    const message = await refusal(() => checkWritable(join(folder, "file", "a.png")), "io");
    expect(message).toMatch(/file is a file, not a folder/);
  });

  test("a link that leads round in a circle", async () => {
    symlinkSync(join(folder, "b"), join(folder, "a"));
    symlinkSync(join(folder, "a"), join(folder, "b"));
    const message = await refusal(() => checkWritable(join(folder, "a", "x.png")), "io");
    expect(message).toMatch(/^Cannot write .*ELOOP/);
  });

  test("a name longer than the system allows", async () => {
    const path = join(folder, `${"a".repeat(300)}.png`);
    expect(await refusal(() => checkWritable(path), "io")).toMatch(/^Cannot write .*ENAMETOOLONG/);
    await refusal(() => writeWhole(path, pixels), "io");
    expect(readdirSync(folder)).toEqual([]);
  });

  test("a folder that vanishes while the image is generated", async () => {
    const path = join(folder, "a.png");
    checkWritable(path);
    rmSync(folder, { recursive: true });
    const message = await refusal(() => writeImage(path, pixels, width, height), "io");
    expect(message).toMatch(/does not exist/);
  });

  // Root may write anywhere, so the rule cannot be seen as root.
  test.skipIf(process.getuid?.() === 0)("a folder without permission", async () => {
    chmodSync(folder, 0o500);
    const message = await refusal(() => checkWritable(join(folder, "a.png")), "io");
    expect(message).toMatch(/is not writable/);
    chmodSync(folder, 0o700);
  });

  test.skipIf(process.getuid?.() === 0)("a file that is write-protected", async () => {
    writeFileSync(join(folder, "a.png"), "mine", { mode: 0o444 });
    const message = await refusal(() => checkWritable(join(folder, "a.png")), "io");
    expect(message).toMatch(/the file that is there is write-protected/);
  });

  test("a place that can be written is left untouched", () => {
    checkWritable(join(folder, "a.png"));
    expect(readdirSync(folder)).toEqual([]);
  });
});
