/**
 * Extracts two files to a cache, as a binary does when it starts: `extract-run.ts FOLDER`, where
 * they lie as source-a.so and source-model-b, to the folder `cache` there.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { openCache } from "../../src/binary/cache.ts";
import type { EmbeddedFile } from "../../src/binary/contents.ts";
import { extract } from "../../src/binary/extract.ts";
import { BasedXLError } from "../../src/errors.ts";

const folder = process.argv[2] ?? ".";
const files = ["a.so", "model/b"].map((name): EmbeddedFile => {
  const source = join(folder, `source-${name.replace("/", "-")}`);
  const contents = readFileSync(source);
  const sha256 = new Bun.CryptoHasher("sha256").update(contents).digest("hex");
  return { group: "library", name, bytes: contents.length, sha256, source };
});
try {
  extract(openCache([join(folder, "cache")], "1"), files);
} catch (error) {
  if (!(error instanceof BasedXLError)) throw error;
  process.stderr.write(`error: ${error.message}\n`);
  process.exitCode = 1;
}
