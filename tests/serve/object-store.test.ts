/**
 * Images of workers in an S3-compatible store, here one of tests/support.
 */
import { expect, test } from "bun:test";
import { encodeFile } from "../../src/image.ts";
import { ObjectStore } from "../../src/serve/remote/object-store.ts";
import { startStore } from "../support/object-store.ts";
import { refusal } from "../support/refusal.ts";

test("an image is put under its name, found again, and read", async () => {
  using server = startStore();
  const store = ObjectStore.open("s3://images/made/today", server.environment);
  const pixels = new Uint8Array(32 * 16 * 3).fill(200);
  const { bytes } = await encodeFile("png", { pixels, width: 32, height: 16 });
  const named = { index: 1, seed: "8", width: 32, height: 16 };
  const { signal } = new AbortController();
  const image = await store.write("job", named, { bytes, format: "png" }, signal);
  expect(image).toEqual({ ...named, file: "job-1.png", bytes: bytes.length, type: "image/png" });
  expect([...server.objects.keys()]).toEqual(["/images/made/today/job-1.png"]);
  expect(await store.find("job", 1, 8n)).toEqual(image);
  expect(await store.find("job", 0, 7n)).toBeNull();
  expect(new Uint8Array(await store.read("job-1.png"))).toEqual(new Uint8Array(bytes));
});

test("says what is wrong with the store", async () => {
  using server = startStore();
  const open = (url: string, environment: Record<string, string>) =>
    refusal(() => ObjectStore.open(url, environment), "bad-option");
  const wrong = await open("https://images.example.org", server.environment);
  expect(wrong).toContain("must be s3://BUCKET/PREFIX");
  const { AWS_SECRET_ACCESS_KEY: _, ...some } = server.environment;
  expect(await open("s3://images", some)).toBe("--store needs AWS_SECRET_ACCESS_KEY to be set.");
  const store = ObjectStore.open("s3://images", server.environment);
  expect(await refusal(() => store.read("job-0.png"), "io")).toContain("job-0.png in the store");
});
