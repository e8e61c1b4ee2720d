/**
 * Transparency taken from images and given back, as sharp does it.
 */
import { expect, test } from "bun:test";
import fc from "fast-check";
import sharp, { type Sharp } from "sharp";
import { joinAlpha, overWhite, splitAlpha } from "../../src/image/alpha.ts";

/** RGBA of a few pixels. */
const pixels = fc
  .integer({ min: 1, max: 20 })
  .chain((count) => fc.uint8Array({ minLength: 4 * count, maxLength: 4 * count }));
const open = (rgba: Uint8Array) =>
  sharp(rgba, { raw: { width: rgba.length / 4, height: 1, channels: 4 } });
const bytesOf = async (image: Sharp) => new Uint8Array(await image.raw().toBuffer());

test("colours and transparency are those that sharp takes, and give the image back", async () => {
  await fc.assert(
    fc.asyncProperty(pixels, async (rgba) => {
      const { rgb, alpha } = splitAlpha(rgba);
      expect(rgb).toEqual(await bytesOf(open(rgba).removeAlpha()));
      expect(alpha).toEqual(await bytesOf(open(rgba).extractChannel("alpha")));
      expect(joinAlpha(rgb, alpha)).toEqual(rgba);
    }),
  );
});

test("white shows behind as with sharp", async () => {
  await fc.assert(
    fc.asyncProperty(pixels, async (rgba) => {
      const { rgb, alpha } = splitAlpha(rgba);
      const flat = await bytesOf(open(rgba).flatten({ background: "#ffffff" }));
      // libvips cuts where we round.
      overWhite(rgb, alpha).forEach((value, i) => {
        expect(Math.abs(value - flat[i]!)).toBeLessThanOrEqual(1);
      });
    }),
  );
});
