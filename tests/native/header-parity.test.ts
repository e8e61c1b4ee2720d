/**
 * The two readers of safetensors headers, in TypeScript and in Zig: for the same bytes both accept
 * the file or both refuse it. Zig's is asked through a plan of the golden model, whose VAE has the
 * bytes in question as further entries.
 */
import { afterAll, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { BasedXLError } from "../../src/errors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import { parseSafetensorsHeader } from "../../src/models/safetensors-header.ts";
import { checkModel } from "../../src/native/plan.ts";
import { mutatedDataBytes, mutatedEntries } from "../support/header-mutations.ts";
import { copyModelBytes, removeCopies } from "../support/model-copy.ts";
import { seed, seedName } from "../support/seed.ts";

const weightsFile = "vae/diffusion_pytorch_model.safetensors";
const folder = copyModelBytes(weightsFile, (bytes) => bytes);
afterAll(removeCopies);

/** Room for the VAE's own entries, moved behind the data of the mutated ones, and for those. */
const headerBytes = 2 ** 16;

test(`accept and refuse the same headers, ${seedName}`, async () => {
  const path = join(folder, weightsFile);
  const whole = readFileSync(path);
  const ownBytes = Number(whole.readBigUInt64LE(0));
  const own = JSON.parse(whole.toString("utf8", 8, 8 + ownBytes));
  delete own.__metadata__;
  for (const entry of Object.values(own) as { data_offsets: number[] }[]) {
    entry.data_offsets = entry.data_offsets.map((offset) => offset + mutatedDataBytes);
  }
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(headerBytes));
  const data = whole.subarray(8 + ownBytes);
  const room = Buffer.alloc(mutatedDataBytes);
  writeFileSync(path, Buffer.concat([length, headerOf(own, Buffer.alloc(0)), room, data]));

  const fileBytes = 8 + headerBytes + mutatedDataBytes + data.length;
  const model = await openModelFolder(folder);
  const native = nativeModelOf(model);
  const unit = model.sizeMultiple / model.vaeFactor;
  expect(refusalOf(() => checkModel(native, unit))).toBeNull();
  const file = openSync(path, "r+");
  let refused = 0;
  const check = (entries: Buffer) => {
    const header = headerOf(own, entries);
    if (header.length > headerBytes) return;
    writeSync(file, header, 0, header.length, 8);
    const ours = refusalOf(() => void parseSafetensorsHeader(path, fileBytes, header));
    const theirs = refusalOf(() => checkModel(native, unit));
    if (ours !== null) refused++;
    expect({ entries: entries.toString("latin1"), ours, theirs }).toEqual({
      entries: entries.toString("latin1"),
      ours: theirs === null ? null : expect.any(String),
      theirs: ours === null ? null : expect.any(String),
    });
  };
  const numRuns = 1500;
  fc.assert(fc.property(mutatedEntries, check), { numRuns, seed });
  // Bytes behind the last tensor.
  writeSync(file, headerOf(own, Buffer.alloc(0)), 0, headerBytes, 8);
  expect(refusalOf(() => checkModel(native, unit))).toBeNull();
  writeSync(file, Buffer.alloc(1), 0, 1, fileBytes);
  expect(refusalOf(() => checkModel(native, unit))).toContain("is too long");
  const header = headerOf(own, Buffer.alloc(0));
  const longer = () => void parseSafetensorsHeader(path, fileBytes + 1, header);
  expect(refusalOf(longer)).toContain("is too long");
  closeSync(file);
  // Both outcomes are met often.
  expect(refused).toBeGreaterThan(numRuns / 10);
  expect(refused).toBeLessThan(numRuns * 0.9);
}, 120_000);

/** The mutated entries, then those of the file, then spaces. */
function headerOf(own: object, entries: Buffer): Buffer {
  const rest = JSON.stringify(own).slice(1);
  const comma = entries.length === 0 ? "" : ",";
  const text = Buffer.concat([Buffer.from("{"), entries, Buffer.from(comma + rest)]);
  return Buffer.concat([text, Buffer.alloc(Math.max(0, headerBytes - text.length), " ")]);
}

function refusalOf(run: () => void): string | null {
  try {
    run();
    return null;
  } catch (error) {
    if (!(error instanceof BasedXLError)) throw error;
    return error.message;
  }
}
