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
  test("the option, else the variable, else the bundled one", async () => {
    const env = { BASEDXL_MODEL: wide };
    const found = (option?: string, variables = {}) => resolveModelPath(option, { env: variables });
    expect(await found(golden, env)).toEqual({ path: golden, bundled: false });
    expect(await found(undefined, env)).toEqual({ path: wide, bundled: false });
    const path = resources.bundledModel();
    expect(await found()).toEqual({ path, bundled: true });
    expect(await found(undefined, { BASEDXL_MODEL: "" })).toEqual({ path, bundled: true });
    expect(await found(join(golden, "model_index.json"))).toEqual({ path: golden, bundled: false });
    expect(await found("~")).toEqual({ path: homedir(), bundled: false });
  });

  for (const [value, sentence] of [
    [
      "stabilityai/sdxl-turbo",
      /model of the Hugging Face hub.*hf download stabilityai\/sdxl-turbo/,
    ],
    ["./models/sdxl", /^--model \.\/models\/sdxl does not exist\. Or get one with: hf download/],
    ["none", /^--model none does not exist, and no folder of models is named: --models-dir or/],
    ["models/a.safetensors", /^--model models\/a\.safetensors does not exist, and no folder/],
    ["", /^--model is empty/],
    [join(golden, "unet/config.json"), /config\.json is text that begins with "{/],
    [join(golden, "model_index.json", "x"), /does not exist/],
    ["x".repeat(5000), /^--model x+ \.\.\. does not exist, and no folder/],
  ] as const) {
    test(`${value.slice(0, 80) || '""'} is refused`, async () => {
      const code = value.endsWith(".json") ? "bad-weights" : "bad-model";
      expect(await refusal(() => resolveModelPath(value, { env: {} }), code)).toMatch(sentence);
    });
  }

  test("a bad variable is named as the variable", async () => {
    const message = await refusal(
      () => resolveModelPath(undefined, { env: { BASEDXL_MODEL: "/none" } }),
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
      const message = await refusal(() => resolveModelPath(value, { env: {} }), "bad-model");
      expect(hint.exec(message)?.[1]).toBe(wanted);
    });
  }
  for (const value of [
    "https://civitai.com/models/1/a",
    "civitai.com/api/download/models/2",
    "https://civitai.red/models/1",
    "civitai:101055@128078",
    "urn:air:sdxl:checkpoint:civitai:101055@128078",
  ]) {
    test(`${value} names a single file`, async () => {
      const message = await refusal(() => resolveModelPath(value, { env: {} }), "bad-model");
      expect(message).toMatch(/is an address, not a file: .*\.safetensors.*Civitai.*--model FILE/);
    });
  }
  for (const value of [
    "https://example.org/a/b",
    "https://huggingface.co/datasets/a/b",
    "https://hf.co",
  ]) {
    test(`${value} is an address that is no model`, async () => {
      const message = await refusal(() => resolveModelPath(value, { env: {} }), "bad-model");
      expect(message).toMatch(/is an address, not a file: download the model first/);
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
  const pathOf = async (folder: string) => (await resolveModelPath(folder, { env: {} })).path;

  test("refs/main that is a folder or a link in a circle counts as none", async () => {
    const one = cached(["000"], null);
    mkdirSync(join(one, "refs/main"));
    expect(await pathOf(one)).toBe(join(one, "snapshots", "000"));
    const other = cached(["000"], null);
    symlinkSync("main", join(other, "refs/main"));
    symlinkSync("fff", join(other, "snapshots/fff"));
    expect(await pathOf(other)).toBe(join(other, "snapshots", "000"));
  });

  test("means the snapshot of refs/main, or the only one", async () => {
    const two = cached(["000", "fff"], "fff\n");
    expect(await pathOf(two)).toBe(join(two, "snapshots", "fff"));
    expect(await pathOf(join(two, "snapshots"))).toBe(join(two, "snapshots", "fff"));
    expect(await pathOf(join(two, "snapshots", "000"))).toBe(join(two, "snapshots", "000"));
    const one = cached(["abc"], null);
    expect(await pathOf(one)).toBe(join(one, "snapshots", "abc"));
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
