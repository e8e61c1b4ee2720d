/**
 * Files that hold no safetensors: each is named for what it is, by its first bytes or its name, in
 * one sentence that says how to get a file that works.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { checkedFile, resolveModelFile } from "../../src/library/resolve.ts";
import { weightsProblem } from "../../src/models/files.ts";
import { foreignFormat } from "../../src/models/files-foreign.ts";
import { refusal } from "../support/refusal.ts";
import { seed, seedName } from "../support/seed.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-foreign-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function put(name: string, content: string | Buffer): string {
  const path = join(folder, name);
  writeFileSync(path, typeof content === "string" ? Buffer.from(content, "latin1") : content);
  return path;
}

const torchZip = "PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0d\0\x15\0a/data.pkl";
const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 6938040682\n";
const tar = Buffer.alloc(512, "a");
tar.write("ustar", 257);

describe("by the first bytes, whatever the name says:", () => {
  for (const [what, content, sentence] of [
    ["PyTorch", torchZip, /holds pickled weights, .* because they can run code; get its \.safet/],
    ["older PyTorch", "\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", /holds pickled weights/],
    ["pickle 4", "\x80\x04\x95\x10\0\0\0\0\0\0\0}", /holds pickled weights/],
    ["zip", "PK\x03\x04\x14\0\0\0\0\0model.safetensors", /is a zip archive.*; unpack it and name/],
    ["GGUF", "GGUF\x03\0\0\0\0\0\0\0", /is a GGUF file, whose quantized blocks are not read; get/],
    ["TensorRT", "ftrt\0\0\0\0\0\0\0\0", /is a TensorRT engine.*one kind of GPU.*; get the model/],
    ["7z", "7z\xbc\xaf\x27\x1c\0\x04\0\0", /is a 7z archive/],
    ["rar", "Rar!\x1a\x07\0\0\0\0", /is a rar archive/],
    ["gzip", "\x1f\x8b\x08\0\0\0\0\0\0\0", /is a gzip archive/],
    ["zstd", "\x28\xb5\x2f\xfd\0\0\0\0\0\0", /is a zstd archive/],
    ["tar", tar, /is a tar archive/],
    ["HDF5", "\x89HDF\r\n\x1a\n\0\0", /holds weights of Keras/],
    ["PNG", "\x89PNG\r\n\x1a\n\0\0\0\0", /is a picture, not a model/],
    ["JPEG", "\xff\xd8\xff\xe0\0\x10JFIF", /is a picture/],
    ["WebP", "RIFF\0\0\0\0WEBPVP8 ", /is a picture/],
    ["LFS", pointer, /is a Git LFS pointer.*; run `git lfs pull`/],
    [
      "xet",
      "# xet version 0\nfilesize = 3\nhash = 'a'\n",
      /is a pointer of git-xet.*; run `git xet checkout`/,
    ],
    ["HTML", "<!DOCTYPE html><html><title>Sign in</title>", /is a web page.*; get the model/],
    ["JSON", '{"error":"Unauthorized","message":"log in"}', /answer of a web site.*; log in there/],
    ["text", "Not Found", /is text that begins with "Not Found", not weights/],
    ["nothing", "", /is empty; download it again/],
    ["zeros", Buffer.alloc(100), /begins with zeros: its download was not finished/],
  ] as const) {
    test(what, async () => {
      const path = put("model.safetensors", content);
      const message = await refusal(() => checkedFile(path), "bad-weights");
      expect(message).toStartWith(`${path} `);
      expect(message).toMatch(sentence);
      expect(message).toMatch(/^[^\p{Cc}]+\.$/u);
    });
  }
});

describe("by the name, where the bytes say nothing:", () => {
  for (const [name, sentence] of [
    ["a.onnx", /is an ONNX graph/],
    ["a.engine", /is a TensorRT engine/],
    ["a.ckpt", /holds pickled weights/],
    ["a.bin", /holds pickled weights/],
    ["a.h5", /holds weights of Keras/],
    ["a.msgpack", /holds weights of Flax/],
    ["a.safetensors.part", /is an unfinished download; let it finish/],
    ["a.safetensors.crdownload", /is an unfinished download/],
    ["0123.incomplete", /is an unfinished download/],
    ["a.safetensors.aria2", /control file of an unfinished download by aria2; run aria2c again/],
  ] as const) {
    test(name, async () => {
      const path = put(name, "\x08\x07\x12\x07pytorch");
      expect(await refusal(() => checkedFile(path), "bad-weights")).toMatch(sentence);
    });
  }

  test("safetensors under another name are safetensors, unless they are unfinished", async () => {
    const weights = "\x02\0\0\0\0\0\0\0{}";
    for (const name of ["b.ckpt", "b.sft", "b"])
      expect(checkedFile(put(name, weights))).toBeTruthy();
    const part = put("b.safetensors.part", weights);
    expect(await refusal(() => checkedFile(part), "bad-weights")).toMatch(/unfinished/);
  });

  test("folders, and files that are not files", async () => {
    mkdirSync(join(folder, "folder.safetensors"));
    expect(weightsProblem(join(folder, "folder.safetensors"))?.what).toBe(
      "is a folder, not a file",
    );
    // For a LoRA a folder without weights is none.
    const path = join(folder, "folder.safetensors");
    expect(await refusal(() => resolveModelFile("lora", path, []), "bad-model")).toMatch(
      /does not exist/,
    );
    expect(await refusal(() => checkedFile("/dev/zero"), "bad-weights")).toMatch(
      /is no regular file/,
    );
  });
});

test(`any bytes under any name: safetensors or one format, ${seedName}`, () => {
  const names = fc.constantFrom("a.safetensors", "a.ckpt", "a.part", "a", ".", "a.safetensors.bin");
  const bytes = fc.uint8Array({ maxLength: 40 });
  const check = (name: string, head: Uint8Array) => {
    const found = foreignFormat(name, Buffer.from(head));
    if (found !== null) expect(`${found.what}; ${found.advice}`).toMatch(/^[a-z][^\p{Cc}]+$/u);
  };
  fc.assert(fc.property(names, bytes, check), { numRuns: 20_000, seed });
});
