/**
 * Images of workers in an S3-compatible store, here a server that knows PUT, GET and HEAD.
 */
import { expect, test } from "bun:test";
import { encodeFile } from "../../src/image.ts";
import { ObjectStore } from "../../src/serve/remote/object-store.ts";
import { refusal } from "../support/refusal.ts";

/** What was put, by path. */
function startStore() {
  const objects = new Map<string, Uint8Array>();
  const server = Bun.serve({
    port: 0,
    async fetch(request) {
      const { pathname } = new URL(request.url);
      if (request.method === "PUT") {
        objects.set(pathname, await request.bytes());
        return new Response(null, { headers: { ETag: '"1"' } });
      }
      const found = objects.get(pathname) as Uint8Array<ArrayBuffer> | undefined;
      if (found === undefined) return new Response(null, { status: 404 });
      return new Response(found, { headers: { ETag: '"1"' } });
    },
  });
  const endpoint = String(server.url).replace(/\/$/, "");
  const keys = { accessKeyId: "id", secretAccessKey: "secret", region: "here" };
  return { objects, options: { endpoint, ...keys }, [Symbol.dispose]: () => server.stop(true) };
}

test("an image is put under its name, found again, and read", async () => {
  using server = startStore();
  const store = ObjectStore.open("s3://images/made/today", server.options);
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
  const open = () => ObjectStore.open("https://images.example.org");
  expect(await refusal(open, "bad-option")).toContain("must be s3://BUCKET/PREFIX");
  const store = ObjectStore.open("s3://images", server.options);
  expect(await refusal(() => store.read("job-0.png"), "io")).toContain("job-0.png in the store");
});
