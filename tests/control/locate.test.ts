/**
 * Which model folder a run uses, and the errors for names that are not folders.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { resolveModelPath } from "../../src/models/locate.ts";
import { resources } from "../../src/resources.ts";
import { refusal } from "../support/refusal.ts";

const golden = join(import.meta.dir, "../fixtures/golden/model");
const wide = join(import.meta.dir, "../fixtures/wide/model");

describe("which model", () => {
  test("the option, else the variable, else the bundled one", () => {
    const env = { BASEDXL_MODEL: wide };
    expect(resolveModelPath(golden, env)).toEqual({ path: golden, bundled: false });
    expect(resolveModelPath(undefined, env)).toEqual({ path: wide, bundled: false });
    const path = resources.bundledModel();
    expect(resolveModelPath(undefined, {})).toEqual({ path, bundled: true });
    const empty = { BASEDXL_MODEL: "" };
    expect(resolveModelPath(undefined, empty)).toEqual({ path, bundled: true });
    expect(resolveModelPath("~", {})).toEqual({ path: homedir(), bundled: false });
  });

  for (const [value, sentence] of [
    [
      "stabilityai/sdxl-turbo",
      /model of the Hugging Face hub.*hf download stabilityai\/sdxl-turbo/,
    ],
    ["./models/sdxl", /^--model \.\/models\/sdxl does not exist\. Get a diffusers folder with/],
    ["none", /^--model none does not exist/],
    [
      "models/a.safetensors",
      /single \.safetensors file, which is not supported yet.*from_single_file/,
    ],
    ["a.ckpt", /single \.ckpt file/],
    ["a.GGUF", /single \.GGUF file/],
    ["", /^--model is empty/],
    [join(golden, "model_index.json"), /is a file, not a diffusers folder/],
    [join(golden, "model_index.json", "x"), /cannot be opened \(ENOTDIR.*Get a diffusers folder/],
    ["x".repeat(5000), /cannot be opened \(ENAMETOOLONG/],
  ] as const) {
    test(`${value.slice(0, 80) || '""'} is refused`, async () => {
      expect(await refusal(() => resolveModelPath(value, {}), "bad-model")).toMatch(sentence);
    });
  }

  test("a bad variable is named as the variable", async () => {
    const message = await refusal(
      () => resolveModelPath(undefined, { BASEDXL_MODEL: "/none" }),
      "bad-model",
    );
    expect(message).toStartWith("BASEDXL_MODEL /none does not exist.");
  });

  const hint = /Hugging Face hub.*Download it with: hf download ([\w./ -]+) --local-dir FOLDER,/;
  for (const [value, wanted] of [
    ["https://huggingface.co/org/my-model", "org/my-model"],
    ["http://www.huggingface.co/org/my-model/", "org/my-model"],
    ["https://hf.co/org/model_1.0", "org/model_1.0"],
    ["huggingface.co/org/model", "org/model"],
    ["HTTPS://HuggingFace.co/org/model?library=diffusers#usage", "org/model"],
    ["https://huggingface.co/org/model/tree/main", "org/model"],
    ["https://huggingface.co/org/model/tree/fp16/unet", "org/model --revision fp16"],
    ["https://huggingface.co/org/model/blob/main/model_index.json", "org/model"],
    [
      "https://huggingface.co/org/model/resolve/v1/sdxl.safetensors?download=true",
      "org/model --revision v1",
    ],
    ["https://huggingface.co/org/model.git", "org/model"],
    ["https://huggingface.co/org/model/commit/0a1b", "org/model --revision 0a1b"],
    ["https://hf.co/org/model/tree/refs%2Fpr%2F3", "org/model --revision refs/pr/3"],
    ["https://hf-mirror.com/org/model", "org/model"],
    ["hf://org/model@fp16/unet", "org/model --revision fp16"],
    ["org/model@main", "org/model"],
    ["hf://org/model", "org/model"],
    ["org/model", "org/model"],
  ] as const) {
    test(`${value} gets the hint for the hub`, async () => {
      const message = await refusal(() => resolveModelPath(value, {}), "bad-model");
      expect(hint.exec(message)?.[1]).toBe(wanted);
    });
  }
  for (const value of ["https://civitai.com/models/1/a", "civitai.com/api/download/models/2"]) {
    test(`${value} names a single file`, async () => {
      const message = await refusal(() => resolveModelPath(value, {}), "bad-model");
      expect(message).toMatch(/is an address, not a folder: .*\.safetensors.*from_single_file/);
    });
  }
  for (const value of [
    "https://example.org/a/b",
    "https://huggingface.co/datasets/a/b",
    "https://hf.co",
  ]) {
    test(`${value} is an address that is no model`, async () => {
      const message = await refusal(() => resolveModelPath(value, {}), "bad-model");
      expect(message).toMatch(/is an address, not a folder: download the model first/);
    });
  }
});

describe("a model of the hub's cache, named by its root", () => {
  const root = mkdtempSync(join(tmpdir(), "basedxl-hub-"));
  afterAll(() => rmSync(root, { recursive: true, force: true }));
  let count = 0;
  const cached = (snapshots: string[], main: string | null) => {
    const folder = join(root, `models--acme--m${count++}`);
    mkdirSync(join(folder, "snapshots"), { recursive: true });
    for (const name of snapshots) mkdirSync(join(folder, "snapshots", name));
    mkdirSync(join(folder, "refs"));
    if (main !== null) writeFileSync(join(folder, "refs", "main"), main);
    return folder;
  };
  const pathOf = (folder: string) => resolveModelPath(folder, {}).path;

  test("refs/main that is a folder or a link in a circle counts as none", () => {
    const one = cached(["000"], null);
    mkdirSync(join(one, "refs/main"));
    expect(pathOf(one)).toBe(join(one, "snapshots", "000"));
    const other = cached(["000"], null);
    symlinkSync("main", join(other, "refs/main"));
    symlinkSync("fff", join(other, "snapshots/fff"));
    expect(pathOf(other)).toBe(join(other, "snapshots", "000"));
  });

  test("means the snapshot of refs/main, or the only one", () => {
    const two = cached(["000", "fff"], "fff\n");
    expect(pathOf(two)).toBe(join(two, "snapshots", "fff"));
    expect(pathOf(join(two, "snapshots"))).toBe(join(two, "snapshots", "fff"));
    expect(pathOf(join(two, "snapshots", "000"))).toBe(join(two, "snapshots", "000"));
    const one = cached(["abc"], null);
    expect(pathOf(one)).toBe(join(one, "snapshots", "abc"));
  });

  for (const [what, snapshots, main, sentence] of [
    [
      "a commit that is not there",
      ["000"],
      "111",
      /has no snapshot 111, which its refs\/main names/,
    ],
    [
      "several snapshots and no refs/main",
      ["a", "b"],
      null,
      /has 2 snapshots .*snapshots\/a, snap/,
    ],
    ["no snapshot", [], null, /has no snapshot; run `hf download` again/],
    ["a refs/main that leads out", ["a", "b"], "../..", /has 2 snapshots and no refs\/main/],
  ] as const) {
    test(`with ${what} is refused`, async () => {
      const folder = cached([...snapshots], main);
      expect(await refusal(() => pathOf(folder), "bad-model")).toMatch(sentence);
    });
  }
});
