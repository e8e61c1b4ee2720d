/**
 * The reader of safetensors headers: what it gives, and a sentence for each broken file.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { BasedXLError } from "../../src/errors.ts";
import {
  parseSafetensorsHeader,
  readSafetensorsHeader,
  readTensorF32,
} from "../../src/models/safetensors-header.ts";
import { mutatedDataBytes, mutatedEntries } from "../support/header-mutations.ts";
import { refusal } from "../support/refusal.ts";
import { seed, seedName } from "../support/seed.ts";

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
  ["{} x", "not valid JSON"],
  ['{"a":"\\ud800"}', "not a JSON object"],
  ['{"\\ud800":1}', "not valid JSON"],
  ["{\xff", "not valid JSON"],
  [[], "not a JSON object"],
  [{ a: 1 }, "does not describe its tensor a: it is not a JSON object"],
  [{ a: { dtype: "F16", shape: [1] } }, "does not describe its tensor a: it has no data_offsets"],
  [{ a: { dtype: 1, shape: [1], data_offsets: [0, 2] } }, "its dtype is not a string"],
  [{ a: { dtype: "F16", shape: [1], data_offsets: [0] } }, "data_offsets are no two whole numbers"],
  [{ a: { dtype: "F16", shape: [-1], data_offsets: [0, 2] } }, "its shape is no list of at most 8"],
  [
    { a: { dtype: "F16", shape: [1.5], data_offsets: [0, 2] } },
    "its shape is no list of at most 8",
  ],
  [{ a: { dtype: "F16", shape: Array(9).fill(1), data_offsets: [0, 2] } }, "its shape is no list"],
  [{ a: { dtype: "F16", shape: [2], data_offsets: [0, 2] } }, "do not fit its shape"],
  [{ a: { dtype: "F16", shape: [2], data_offsets: [4, 0] } }, "it ends before it begins"],
  [
    { a: { dtype: "F16", shape: [1], data_offsets: [2, 4] } },
    "is cut off: 4 of 66 bytes are missing",
  ],
  [
    '{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
    "it has two entries dtype",
  ],
  [
    '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\\u0061":' +
      '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
    "names its tensor a twice",
  ],
  [`{"__metadata__":${"[".repeat(1e6)}`, "nested deeper than 127 levels"],
  [`{"__metadata__":${'{"a":'.repeat(1e6)}`, "nested deeper than 127 levels"],
  [
    '{"a":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,0]}}',
    "no list of at most",
  ],
  [
    '{"a":{"dtype":"?","shape":[9223372036854775807,9223372036854775807],"data_offsets":[0,0]}}',
    "do not fit its shape",
  ],
])("a broken header %# has a sentence", async (header, sentence) => {
  const path = fileOf(header);
  const message = await refusal(() => readSafetensorsHeader(path), "bad-weights");
  expect(message).toContain(sentence);
  expect(message).toMatch(/^\/[^\p{Cc}]+\.$/u);
});

test("overlapping tensors are refused, gaps and unknown types are not", async () => {
  const entry = (dtype: string, begin: number, end: number) => ({
    ...{ dtype, shape: [end - begin], data_offsets: [begin, end] },
  });
  const overlap = fileOf({ b: entry("U8", 2, 6), a: entry("U8", 0, 3) }, Buffer.alloc(6));
  expect(await refusal(() => readSafetensorsHeader(overlap), "bad-weights")).toMatch(
    /has tensors that overlap: a and b\.$/,
  );
  const gap = fileOf({ a: entry("NEW", 1, 2), b: entry("U8", 4, 6) }, Buffer.alloc(6));
  expect(readSafetensorsHeader(gap).tensors.size).toBe(2);
});

test("bytes behind the last tensor are refused, as by the reference implementation", async () => {
  const b = { dtype: "U8", shape: [4], data_offsets: [2, 6] };
  const a = { dtype: "U8", shape: [2], data_offsets: [0, 2] };
  expect(readSafetensorsHeader(fileOf({ b, a }, Buffer.alloc(6))).tensors.size).toBe(2);
  expect(readSafetensorsHeader(fileOf({})).tensors.size).toBe(0);
  for (const [header, rest] of [[{ b, a }, 6] as const, [{}, 0] as const]) {
    const path = fileOf(header, Buffer.alloc(rest + 3));
    expect(await refusal(() => readSafetensorsHeader(path), "bad-weights")).toMatch(
      /is too long: its last tensor ends 3 bytes before the file; copy or download .* again\.$/,
    );
  }
});

test.each([
  [Buffer.alloc(3, 1), /is not a safetensors file: it has 3 bytes/],
  [Buffer.from("\x40\0\0\0\0\0\0\0{}", "latin1"), /cut off in its header, of which 62 bytes/],
  [Buffer.from("\x01\x01\x01\x01\x01\x01\x01\x01{}", "latin1"), /its header would take \d+ bytes/],
])("a file of %s is refused", async (bytes, sentence) => {
  const path = join(folder, "b.safetensors");
  writeFileSync(path, bytes);
  expect(await refusal(() => readSafetensorsHeader(path), "bad-weights")).toMatch(sentence);
});

describe("what nobody vouches for", () => {
  const path = "/f.safetensors";
  /** Of a file without data. */
  const parseAlone = (text: string) => {
    const json = Buffer.from(text);
    return parseSafetensorsHeader(path, 8 + json.length, json);
  };

  test(`100,000 headers: tensors in the file or one sentence, ${seedName}`, () => {
    // Where tensors of the entries end, or anywhere.
    const room = fc.oneof(fc.constantFrom(12, 13, 24), fc.nat(2 * mutatedDataBytes));
    let accepted = 0;
    const check = (entries: Buffer, dataBytes: number) => {
      const json = Buffer.concat([Buffer.from("{"), entries, Buffer.from("}")]);
      const fileBytes = 8 + json.length + dataBytes;
      try {
        for (const { begin, end } of parseSafetensorsHeader(
          path,
          fileBytes,
          json,
        ).tensors.values()) {
          if (begin < 8 + json.length || begin > end || end > fileBytes) throw new Error("outside");
        }
        accepted += 1;
      } catch (error) {
        if (!(error instanceof BasedXLError)) throw error;
        expect(error.code).toBe("bad-weights");
        expect(error.message).toMatch(/^\/f\.safetensors [^\p{Cc}]{1,400}\.$/u);
      }
    };
    fc.assert(fc.property(mutatedEntries, room, check), { numRuns: 100_000, seed });
    expect(accepted).toBeGreaterThan(1000);
  }, 120_000);

  test("long headers are left at their limits", async () => {
    const tensor = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}';
    const many = Array.from({ length: 100_001 }, (_, i) => `"${i}":${tensor}`).join();
    expect(await refusal(() => parseAlone(`{${many}}`), "bad-weights")).toMatch(
      /more than 100000 tensors/,
    );
    const notes = Array.from({ length: 200_000 }, (_, i) => `"${i}":""`).join();
    expect(parseAlone(`{"__metadata__":{${notes}}}`).metadata.size).toBe(10_000);
    const shape = `{"a":{"shape":[1${",1".repeat(1e6)}]}}`;
    expect(await refusal(() => parseAlone(shape), "bad-weights")).toMatch(/its shape is no list/);
    const long = `{"a":{"dtype":"U8","shape":[${"9".repeat(1e6)}],"data_offsets":[0,0]}}`;
    expect(await refusal(() => parseAlone(long), "bad-weights")).toMatch(/its shape is no list/);
  });

  test("names of any kind are names: no prototype, escapes decoded", () => {
    const tensor = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}';
    const names = ["__proto__", "constructor", "\\u00e4\\n", "é"];
    const text = `{${names.map((name) => `"${name}":${tensor}`).join()}}`;
    const { tensors } = parseAlone(text);
    expect([...tensors.keys()]).toEqual(["__proto__", "constructor", "ä\n", "é"]);
    const odd = parseAlone('{"__metadata__":{"a":{"b":[1]}}}');
    expect(odd.metadata.get("a")).toBe('{"b":[1]}');
  });
});
