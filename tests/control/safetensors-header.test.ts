/**
 * The reader of safetensors headers: what it gives, and a sentence for each broken file.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readSafetensorsHeader, readTensorF32 } from "../../src/models/safetensors-header.ts";
import { refusal } from "../support/refusal.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-header-"));
afterAll(() => rmSync(folder, { recursive: true }));

function fileOf(header: unknown, data = Buffer.alloc(0)): string {
  const text = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const path = join(folder, "a.safetensors");
  writeFileSync(path, Buffer.concat([length, text, data]));
  return path;
}

describe("a whole file", () => {
  const values = Buffer.from([0x00, 0x3c, 0x00, 0xc0, 0x80, 0x3f, 0, 0, 0x80, 0x3f]);
  const path = () =>
    fileOf(
      {
        __metadata__: { "modelspec.prediction_type": "v" },
        half: { dtype: "F16", shape: [1, 2], data_offsets: [0, 4] },
        brain: { dtype: "BF16", shape: [], data_offsets: [4, 6] },
        full: { dtype: "F32", shape: [1], data_offsets: [6, 10] },
        byte: { dtype: "U8", shape: [0], data_offsets: [10, 10] },
      },
      values,
    );

  test("gives types, shapes, places and metadata", () => {
    const header = readSafetensorsHeader(path());
    expect(header.metadata.get("modelspec.prediction_type")).toBe("v");
    expect(header.tensors.size).toBe(4);
    const half = header.tensors.get("half")!;
    expect(half).toMatchObject({ dtype: "F16", shape: [1, 2] });
    expect([half.begin, half.end]).toEqual([8 + header.headerBytes, 12 + header.headerBytes]);
  });

  test("gives small tensors in f32", () => {
    const header = readSafetensorsHeader(path());
    expect([...readTensorF32(header, "half")]).toEqual([1, -2]);
    expect([...readTensorF32(header, "brain")]).toEqual([1]);
    expect([...readTensorF32(header, "full")]).toEqual([1]);
  });

  test("refuses tensors that hold no numbers, and those that are not there", async () => {
    const header = readSafetensorsHeader(path());
    expect(await refusal(() => readTensorF32(header, "byte"), "bad-weights")).toMatch(/type U8/);
    expect(await refusal(() => readTensorF32(header, "no"), "bad-weights")).toMatch(/no tensor no/);
  });
});

test.each([
  ["{", "not valid JSON"],
  [[], "not a JSON object"],
  [{ a: 1 }, "does not describe its tensor a"],
  [{ a: { dtype: "F16", shape: [1], data_offsets: [0] } }, "does not describe its tensor a"],
  [{ a: { dtype: "F16", shape: [-1], data_offsets: [0, 2] } }, "does not describe its tensor a"],
  [{ a: { dtype: "F16", shape: [2], data_offsets: [0, 2] } }, "do not fit its shape"],
  [{ a: { dtype: "F16", shape: [1], data_offsets: [2, 4] } }, "is cut off: 4 bytes of a"],
])("a broken header %j has a sentence", async (header, sentence) => {
  const path = fileOf(header);
  expect(await refusal(() => readSafetensorsHeader(path), "bad-weights")).toContain(sentence);
});
