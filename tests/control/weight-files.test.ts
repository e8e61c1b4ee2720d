/**
 * The weight files of a component: plain, variant or shards, and the error when there are none.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { findWeightFiles } from "../../src/models/weight-files.ts";
import { refusal } from "../support/refusal.ts";

const root = mkdtempSync(join(tmpdir(), "basedxl-weights-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let folderCount = 0;

/** null: like weights; text as it is; else JSON. */
function fileContent(content: unknown): string {
  if (content === null) return "\x02\0\0\0\0\0\0\0{}";
  return typeof content === "string" ? content : JSON.stringify(content);
}

describe("weight files", () => {
  const stem = "diffusion_pytorch_model";
  const folderWith = (files: Record<string, unknown>): string => {
    const folder = join(root, `weights-${folderCount++}`);
    mkdirSync(folder);
    for (const [name, content] of Object.entries(files)) {
      writeFileSync(join(folder, name), fileContent(content));
    }
    return folder;
  };
  const found = async (files: Record<string, unknown>) => {
    const folder = folderWith(files);
    const paths = await findWeightFiles(folder, stem);
    expect(paths.map(dirname)).toEqual(paths.map(() => folder));
    return paths.map((path) => path.slice(folder.length + 1));
  };

  test("the plain file before the fp16 variant, whole before shards", async () => {
    const plain = `${stem}.safetensors`;
    const fp16 = `${stem}.fp16.safetensors`;
    expect(await found({ [plain]: null, [fp16]: null })).toEqual([plain]);
    expect(await found({ [fp16]: null, [`${stem}.bin`]: null })).toEqual([fp16]);
  });

  test("shards, each once, in order", async () => {
    const index = {
      weight_map: { b: "x-2.safetensors", a: "x-1.safetensors", c: "x-2.safetensors" },
    };
    const shards = { "x-1.safetensors": null, "x-2.safetensors": null };
    const wanted = ["x-1.safetensors", "x-2.safetensors"];
    for (const ending of [
      ".safetensors.index.json",
      ".safetensors.index.fp16.json",
      ".fp16.safetensors.index.json",
    ]) {
      expect(await found({ [`${stem}${ending}`]: index, ...shards })).toEqual(wanted);
    }
  });

  test("none at all names what was looked for", async () => {
    const folder = folderWith({ "other.safetensors": null });
    const message = await refusal(() => findWeightFiles(folder, "model"), "bad-weights");
    expect(message).toBe(
      `${folder} has no weights; looked for model.safetensors, model.safetensors.index.json, ` +
        "model.fp16.safetensors, model.safetensors.index.fp16.json, " +
        "model.fp16.safetensors.index.json.",
    );
  });

  test("pickled weights alone", async () => {
    const folder = folderWith({ "pytorch_model.bin": null });
    const message = await refusal(() => findWeightFiles(folder, "model"), "bad-weights");
    expect(message).toMatch(/only pickled weights \(pytorch_model\.bin\).*safe_serialization=True/);
  });

  const indexName = `${stem}.safetensors.index.json`;
  for (const [what, index, sentence, code] of [
    [
      "a shard that is not there",
      { weight_map: { a: "x.safetensors" } },
      /shard x\.safe/,
      "bad-weights",
    ],
    [
      "a path out of the folder",
      { weight_map: { a: "../x.safetensors" } },
      /same folder/,
      "bad-model",
    ],
    ["an index without a map", {}, /weight_map is missing/, "bad-model"],
    ["an empty map", { weight_map: {} }, /weight_map is empty/, "bad-model"],
    ["a map to numbers", { weight_map: { a: 1 } }, /weight_map is .*it must be text/, "bad-model"],
  ] as const) {
    test(what, async () => {
      const folder = folderWith({ [indexName]: index });
      const message = await refusal(() => findWeightFiles(folder, stem), code);
      expect(message).toMatch(sentence);
      expect(message).toStartWith(join(folder, indexName));
    });
  }

  const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5135149760\n";
  const index = { weight_map: { a: "x-1.safetensors", b: "x-2.safetensors" } };
  const shards = { "x-1.safetensors": null, "x-2.safetensors": null };
  const fp16Index = { weight_map: { a: "y-1.safetensors" } };
  const broken: [string, Record<string, unknown>, RegExp][] = [
    ["a pointer", { [`${stem}.safetensors`]: pointer }, /is a Git LFS pointer.*git lfs pull/],
    ["an empty file", { [`${stem}.safetensors`]: "" }, /is empty; download it again/],
    ["a web page", { [`${stem}.safetensors`]: "<html>" }, /is a web page/],
    ["an error page", { [`${stem}.safetensors`]: "Entry not found" }, /begins with "Entry not/],
    [
      "a shard that is a pointer",
      { [indexName]: index, ...shards, "x-2.safetensors": pointer },
      /x-2\.safetensors is a Git LFS pointer/,
    ],
    ["an index that is a pointer", { [indexName]: pointer, ...shards }, /is a Git LFS pointer/],
    ["a missing shard", { [indexName]: index, "x-1.safetensors": null }, /the shard x-2/],
  ];
  for (const [what, files, sentence] of broken) {
    test(`${what} is refused, and left where a good fp16 variant is beside it`, async () => {
      const message = await findWeightFiles(folderWith(files), stem).then(String, String);
      expect(message).toMatch(sentence);
      const fp16 = `${stem}.fp16.safetensors`;
      expect(await found({ ...files, [fp16]: null })).toEqual([fp16]);
      const variant = { [`${stem}.fp16.safetensors.index.json`]: fp16Index };
      expect(await found({ ...files, ...variant, "y-1.safetensors": null })).toEqual([
        "y-1.safetensors",
      ]);
      const both = await findWeightFiles(folderWith({ ...files, [fp16]: pointer }), stem).catch(
        (error: Error) => error.message,
      );
      expect(both).toMatch(sentence);
    });
  }

  test("a dangling link is reported as such", async () => {
    const folder = folderWith({});
    symlinkSync("../../blobs/gone", join(folder, "model.safetensors"));
    const message = await refusal(() => findWeightFiles(folder, "model"), "bad-weights");
    expect(message).toMatch(
      /is a link to \.\.\/\.\.\/blobs\/gone, which does not exist; .*basedxl pull/,
    );
  });
});
