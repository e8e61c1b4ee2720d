/**
 * Hashes of model files while an image is generated: small files are always known, large ones are
 * waited for once, and what was computed is kept.
 */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HashCache } from "../../src/library/hashes.ts";
import { FileHashes, startHashing } from "../../src/metadata/hashes.ts";
import { preparePipeline } from "../../src/pipeline.ts";
import { refusal } from "../support/refusal.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-file-hashes-"));
afterAll(() => rmSync(folder, { recursive: true }));
const { signal } = new AbortController();

function hashOf(...parts: Uint8Array[]): string {
  const hasher = new Bun.CryptoHasher("sha256");
  for (const part of parts) hasher.update(part);
  return hasher.digest("hex");
}

/** A file of zeros behind `start`, which takes no room on the disk. */
function zeros(name: string, bytes: number, start = ""): string {
  const path = join(folder, name);
  writeFileSync(path, start);
  truncateSync(path, bytes);
  return path;
}

test("small files are known without a wait, whole and without their header", async () => {
  const path = zeros("small", 100, "header");
  const files = [
    { path, start: 0 },
    { path, start: 6 },
    { path: join(folder, "none"), start: 0 },
  ];
  using hashes = new FileHashes(files, null);
  expect(await hashes.settled(0, () => {}, signal)).toBe(true);
  expect(hashes.of(path)).toBe(hashOf(Buffer.from("header"), Buffer.alloc(94)));
  expect(hashes.of(path, 6)).toBe(hashOf(Buffer.alloc(94)));
  expect(hashes.of(join(folder, "none"))).toBeNull();
});

test("a large file is left out, waited for, or known from another run", async () => {
  const bytes = 2 ** 27;
  const large = zeros("large", bytes);
  const files = [{ path: large, start: 0 }];
  const cache = folder;
  {
    using hashes = new FileHashes(files, new HashCache(cache));
    // Of all images of a run, only the first waits.
    for (const _ of [1, 2]) expect(await hashes.settled(0, () => {}, signal)).toBe(false);
    expect(hashes.of(large)).toBeNull();
  }
  {
    const waits: string[] = [];
    using hashes = new FileHashes(files, new HashCache(cache));
    expect(await hashes.settled(600_000, () => void waits.push("waits"), signal)).toBe(true);
    expect(waits.length).toBeLessThan(2);
    expect(hashes.of(large)).toMatch(/^254bcc3fc4f2/);
  }
  using known = new FileHashes(files, new HashCache(cache));
  expect(await known.settled(0, () => {}, signal)).toBe(true);
  expect(new HashCache(cache).fileWith("254bcc3fc4")).toBe(large);
  truncateSync(large, bytes + 1);
  expect(new HashCache(cache).fileWith("254bcc3fc4")).toBeNull();
}, 120_000);

test("a stop ends the wait", async () => {
  const files = [{ path: zeros("larger", 2 ** 36), start: 0 }];
  const controller = new AbortController();
  using hashes = new FileHashes(files, null);
  const waiting = refusal(
    () => hashes.settled(600_000, () => controller.abort(), controller.signal),
    "cancelled",
  );
  expect(await waiting).toBe("Stopped before the image was done.");
});

test("who makes many images has the files of a model read once, the bundled one too", async () => {
  const prepared = await preparePipeline({ devices: { device: "cpu" } });
  const [path] = prepared.model.weights.unet.files;
  const cache = new HashCache(folder);
  expect(cache.known(path!)).toBeNull();
  using hashes = startHashing(prepared, cache);
  await hashes.settled(0, () => {}, signal);
  expect(hashes.of(path!)).toMatch(/^[0-9a-f]{64}$/);
  expect(cache.known(path!)).toBe(hashes.of(path!));
});

test("the hub's cache names files after their hash", async () => {
  const sha256 = "ab".repeat(32);
  const hub = join(folder, "blobs");
  Bun.spawnSync(["mkdir", hub]);
  const path = zeros(join("blobs", sha256), 10);
  using hashes = new FileHashes([{ path, start: 0 }], null);
  expect(await hashes.settled(0, () => {}, signal)).toBe(true);
  expect(hashes.of(path)).toBe(sha256);
});
