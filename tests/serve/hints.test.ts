/**
 * Hints of ControlNets as the page shows them before a job has them.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readImage } from "../../src/image/read.ts";
import { resized } from "../../src/image/transform.ts";
import { encodeFile } from "../../src/image.ts";
import { makeHint } from "../../src/networks/hints.ts";
import { controlPreprocessors } from "../../src/settings/control.ts";
import { ipImage } from "../support/ip-adapter-files.ts";
import { startTestServer, type TestServer } from "../support/serve-fixture.ts";

const outputs = mkdtempSync(join(tmpdir(), "basedxl-hints-"));
let server: TestServer;

beforeAll(async () => {
  server = await startTestServer({ outputs, flags: { "max-megapixels": "0.05" } });
});
afterAll(async () => {
  await server?.stop();
  rmSync(outputs, { recursive: true });
});

const post = async (query: Record<string, string>, body: Uint8Array) =>
  await server.fetch(`/api/v1/hints?${new URLSearchParams(query)}`, {
    ...{ method: "POST", body: body as Uint8Array<ArrayBuffer> },
  });

const errorOf = async (response: Response) => {
  const { error } = (await response.json()) as { error: { message: string } };
  return { status: response.status, message: error.message };
};

test.each([...controlPreprocessors])("%s is what a job makes of the image", async (preprocess) => {
  const image = ipImage(0);
  const { bytes } = await encodeFile("png", image);
  const response = await post({ preprocess, width: "48", height: "64" }, bytes);
  expect(response.headers.get("Content-Type")).toBe("image/png");
  const options = { name: "the hint", channels: 3, background: "#000000" } as const;
  const shown = await readImage(await response.bytes(), options);
  const size = { width: 48, height: 64 };
  expect(shown).toEqual(await makeHint(await resized(image, size, "cover"), preprocess));
});

test("what cannot be one is refused in a sentence", async () => {
  const { bytes } = await encodeFile("png", ipImage(0));
  const size = { width: "64", height: "64" };
  const unknown = await errorOf(await post({ preprocess: "depth", ...size }, bytes));
  expect(unknown).toMatchObject({ status: 400, message: expect.stringContaining("canny") });
  const text = await errorOf(await post({ preprocess: "canny", ...size }, Buffer.from("text")));
  expect(text).toMatchObject({ status: 400, message: expect.stringContaining("The body") });
  const wide = await errorOf(await post({ preprocess: "canny", ...size, width: "4096" }, bytes));
  expect(wide).toMatchObject({ status: 400, message: expect.stringContaining("width") });
  const pixels = new Uint8Array(3 * 300 * 300);
  const large = (await encodeFile("png", { pixels, width: 300, height: 300 })).bytes;
  const refused = await errorOf(await post({ preprocess: "none", ...size }, large));
  expect(refused).toMatchObject({ status: 400, message: expect.stringContaining("0.05 million") });
});
