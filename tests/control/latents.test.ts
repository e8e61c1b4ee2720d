/**
 * The latents file: read back by the tests' reader, and compared byte by byte.
 */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import { encodeLatents, writeLatents } from "../../src/image/latents.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-latents-"));
afterAll(() => rmSync(folder, { recursive: true }));

test("the file holds one f32 tensor named latents; nothing is left beside it", async () => {
  const path = join(folder, "a.safetensors");
  const values = Float32Array.from({ length: 4 * 2 * 3 }, (_, index) => index - 7.25);
  await writeLatents(path, values, [1, 4, 2, 3]);
  const tensors = readSafetensors(path);
  expect([...tensors.keys()]).toEqual(["latents"]);
  const latents = tensors.get("latents");
  expect(latents?.dtype).toBe("F32");
  expect(latents?.shape).toEqual([1, 4, 2, 3]);
  expect(latents?.data).toEqual(values);
  expect(readdirSync(folder)).toEqual(["a.safetensors"]);
});

test("the values begin at a multiple of 8 bytes, whatever the shape's digits", () => {
  for (const width of [1, 10, 100, 1000]) {
    const file = encodeLatents(new Float32Array(width), [1, 1, 1, width]);
    const headerBytes = Number(new DataView(file.buffer).getBigUint64(0, true));
    expect(headerBytes % 8).toBe(0);
    expect(file.length).toBe(8 + headerBytes + 4 * width);
    const header = new TextDecoder().decode(file.subarray(8, 8 + headerBytes));
    expect(JSON.parse(header).latents.data_offsets).toEqual([0, 4 * width]);
  }
});

test("a view into a larger array is written by its own values", () => {
  const whole = Float32Array.from([1, 2, 3, 4]);
  const file = encodeLatents(whole.subarray(1, 3), [1, 1, 1, 2]);
  expect([...new Float32Array(file.slice(-8).buffer)]).toEqual([2, 3]);
});

test("a length that is not the shape's is a bug of ours", () => {
  expect(() => encodeLatents(new Float32Array(5), [1, 1, 2, 3])).toThrow("latents 5");
});
