/**
 * Reading of a model's text files: JSON as Python writes it, and a separate error message for each
 * way in which a download or an editor breaks a file.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import fc from "fast-check";
import { fileProblem, weightsProblem } from "../../src/models/files.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { parseJson } from "../../src/models/json.ts";
import { golden, linkedModel } from "../support/linked-model.ts";
import { refusal } from "../support/refusal.ts";

const root = mkdtempSync(join(tmpdir(), "basedxl-files-"));
// Removing some hundred files takes seconds on a busy disk.
setDefaultTimeout(60_000);
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Every JSON file of the model that must be there. */
const jsonFiles = [
  "model_index.json",
  "text_encoder/config.json",
  "text_encoder_2/config.json",
  "unet/config.json",
  "vae/config.json",
  "scheduler/scheduler_config.json",
  "tokenizer/tokenizer_config.json",
  "tokenizer/special_tokens_map.json",
  "tokenizer_2/vocab.json",
];

const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5135149760\n";

describe("JSON as Python writes it", () => {
  test("words for numbers that JSON lacks, outside strings only", () => {
    const text = '{"a": -Infinity, "b": [Infinity,NaN], "c": "NaN, -Infinity \\" NaN", "NaN": 1}';
    expect(parseJson(text)).toEqual({
      a: Number.NEGATIVE_INFINITY,
      b: [Number.POSITIVE_INFINITY, Number.NaN],
      c: 'NaN, -Infinity " NaN',
      NaN: 1,
    });
    expect(parseJson("NaN")).toBeNaN();
  });

  test("all else is JSON's, with JSON's errors", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const text = JSON.stringify({ value, Infinity: "NaN" });
        expect(parseJson(text)).toEqual(JSON.parse(text));
        expect(parseJson(`[${text}, NaN]`)).toEqual([JSON.parse(text), Number.NaN]);
      }),
    );
    for (const text of [
      "infinity",
      "+Infinity",
      "1Infinity",
      "Infinity1",
      "[NaNa]",
      "-NaN",
      "{'a'",
    ]) {
      expect(() => parseJson(text), text).toThrow();
    }
  });

  test("every file of a model may have them, and a byte order mark", async () => {
    const folder = linkedModel(root);
    const before = await openModelFolder(folder);
    for (const file of [...jsonFiles, "basedxl.json"]) {
      if (file === "basedxl.json") writeFileSync(join(folder, file), '{"steps": 7}');
      const text = readFileSync(join(folder, file), "utf8");
      const isVocabulary = file.endsWith("vocab.json") || file === "basedxl.json";
      const more = isVocabulary ? "" : '"x": -Infinity, "y": NaN, "z": [Infinity],';
      writeFileSync(join(folder, file), `\ufeff${text.replace("{", `{${more}`)}`);
    }
    const merges = join(folder, "tokenizer/merges.txt");
    writeFileSync(merges, `\ufeff${readFileSync(merges, "utf8")}`);
    const { tokenizer, ...opened } = await openModelFolder(folder);
    expect(opened.unet).toEqual(before.unet);
    expect(opened.scheduler).toEqual(before.scheduler);
    expect(opened.defaults.steps).toBe(7);
    expect(tokenizer!.encode("a Cat!")).toEqual(before.tokenizer!.encode("a Cat!"));
  });

  test("a number that must be finite is refused by name", async () => {
    const folder = linkedModel(root);
    const path = join(folder, "scheduler/scheduler_config.json");
    const text = readFileSync(path, "utf8");
    for (const word of ["NaN", "Infinity", "-Infinity"]) {
      writeFileSync(path, text.replace(/"beta_end": [\d.]+/, `"beta_end": ${word}`));
      const message = await refusal(() => openModelFolder(folder), "bad-model");
      expect(message).toContain(`beta_end is ${word}, but it must be`);
    }
  });
});

describe("files whose contents do not match their names", () => {
  const broken: [string, string | Buffer, RegExp][] = [
    ["a Git LFS pointer", pointer, /is a Git LFS pointer.*git lfs pull.*basedxl pull/],
    ["a web page", "<!DOCTYPE html>\n<html>", /is a web page.*basedxl pull/],
    ["another web page", "\ufeff\n <HTML lang=en>", /is a web page/],
    ["an empty file", "", /is empty; download it again/],
    ["UTF-16 with its mark", Buffer.from('\ufeff{"a": 1}', "utf16le"), /is UTF-16 text.*as UTF-8/],
    ["UTF-16 without", Buffer.from('{"a": 1}', "utf16le"), /is UTF-16 text/],
    ["big-endian UTF-16", Buffer.from('\ufeff{"a": 1}', "utf16le").swap16(), /is UTF-16 text/],
    ["zeros", Buffer.alloc(5000), /begins with zeros: its download was not finished/],
    ["no UTF-8", Buffer.from('{"caf\xe9": 1}', "latin1"), /is not UTF-8 text/],
  ];
  for (const [what, content, sentence] of broken) {
    test(`${what}, in place of each text file`, async () => {
      const folder = linkedModel(root);
      for (const file of [...jsonFiles, "tokenizer/merges.txt"]) {
        const before = readFileSync(join(folder, file));
        writeFileSync(join(folder, file), content);
        const message = await refusal(() => openModelFolder(folder), "bad-model");
        expect(message).toStartWith(`${join(folder, file)} `);
        expect(message).toMatch(sentence);
        writeFileSync(join(folder, file), before);
      }
    });
  }

  test("a dangling link, also where the file is optional", async () => {
    const folder = linkedModel(root);
    for (const file of ["basedxl.json", ...jsonFiles.toReversed()]) {
      rmSync(join(folder, file), { force: true });
      symlinkSync("../../blobs/gone", join(folder, file));
      const message = await refusal(() => openModelFolder(folder), "bad-model");
      expect(message).toMatch(
        / is a link to \.\.\/\.\.\/blobs\/gone, which does not exist; .*pull/,
      );
      expect(message).toStartWith(join(folder, file));
    }
  });

  test("links in a circle, also where the file is optional", async () => {
    const folder = linkedModel(root);
    for (const file of ["basedxl.json", ...jsonFiles.toReversed()]) {
      const before = lstatSync(join(folder, file), { throwIfNoEntry: false });
      if (before) renameSync(join(folder, file), join(folder, `${file}.kept`));
      symlinkSync(basename(file), join(folder, file));
      const message = await refusal(() => openModelFolder(folder), "bad-model");
      expect(message).toStartWith(`${join(folder, file)} is behind a link that leads back`);
      rmSync(join(folder, file));
      if (before) renameSync(join(folder, `${file}.kept`), join(folder, file));
    }
  });

  test("a file in place of a component's folder", async () => {
    for (const component of ["unet", "tokenizer", "tokenizer_2", "scheduler"]) {
      const folder = linkedModel(root);
      rmSync(join(folder, component), { recursive: true });
      writeFileSync(join(folder, component), "x");
      const message = await refusal(() => openModelFolder(folder), "bad-model");
      expect(message).toStartWith(`${join(folder, component)}/`);
      expect(message).toContain("a folder above it is a file");
    }
  });

  test("folders, devices and pipes are not read", async () => {
    const folder = linkedModel(root);
    const path = join(folder, "unet/config.json");
    rmSync(path);
    mkdirSync(path);
    expect(await refusal(() => openModelFolder(folder), "bad-model")).toMatch(/is a folder, not/);
    rmSync(path, { recursive: true });
    symlinkSync("/dev/zero", path);
    expect(await refusal(() => openModelFolder(folder), "bad-model")).toMatch(/is no regular file/);
    expect(Bun.spawnSync(["mkfifo", `${path}.fifo`]).exitCode).toBe(0);
    expect(fileProblem(`${path}.fifo`)).toMatchObject({ what: "is no regular file" });
  });

  test("weights that are text or a pickle", () => {
    const path = join(root, "model.safetensors");
    for (const [content, what] of [
      [
        '{"error": "Repository not found"}',
        /is the answer of a web site that refused the download/,
      ],
      ["Invalid username or password.", /is text that begins with "Invalid/],
      ["PK\x03\x04aaaaaaaaaa", /is a zip archive/],
      [pointer, /Git LFS pointer/],
    ] as const) {
      writeFileSync(path, content);
      expect(weightsProblem(path)?.what).toMatch(what);
    }
    expect(weightsProblem(join(golden, "unet/diffusion_pytorch_model.safetensors"))).toBeNull();
    expect(weightsProblem(join(dirname(path), "none"))).toMatchObject({ missing: true });
  });
});
