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
      /nor in the cache of the Hugging Face hub; .*: basedxl pull stabilityai\/sdxl-turbo\./,
    ],
    [
      "./models/sdxl",
      /^--model \.\/models\/sdxl does not exist\. Or fetch one from.* --model stab/,
    ],
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

  test("a refiner is named as the refiner", async () => {
    const options = { env: {}, flag: "--refiner" };
    const message = await refusal(() => resolveModelPath("none", options), "bad-model");
    expect(message).toMatch(/^--refiner none does not exist.* --refiner stab.*-refiner-1\.0\.$/);
  });

  test("a bad variable is named as the variable", async () => {
    const message = await refusal(
      () => resolveModelPath(undefined, { env: { BASEDXL_MODEL: "/none" } }),
      "bad-model",
    );
    expect(message).toStartWith("BASEDXL_MODEL /none does not exist.");
  });

  test("an id of the hub is what its cache has, whole, and what can be pulled", async () => {
    const home = mkdtempSync(join(tmpdir(), "basedxl-hub-"));
    const root = join(home, "hub", "models--org--model");
    const commit = "0123456789abcdef0123456789abcdef01234567";
    mkdirSync(join(root, "refs"), { recursive: true });
    mkdirSync(join(root, "snapshots"));
    writeFileSync(join(root, "refs", "main"), commit);
    const snapshot = join(root, "snapshots", commit);
    const options = { env: { HF_HOME: home } };
    try {
      symlinkSync(golden, snapshot);
      for (const value of [
        "org/model",
        "https://hf.co/org/model/tree/main",
        `org/model@${commit}`,
      ]) {
        expect((await resolveModelPath(value, options)).path).toBe(snapshot);
      }
      // Python's refs are there before its files.
      rmSync(snapshot);
      mkdirSync(snapshot);
      writeFileSync(join(snapshot, "model_index.json"), "{}");
      symlinkSync(join(golden, "unet"), join(snapshot, "unet"));
      const index = { unet: ["diffusers", "U"], vae: ["diffusers", "V"], feature: [null, null] };
      writeFileSync(join(snapshot, "model_index.json"), JSON.stringify(index));
      const message = await refusal(() => resolveModelPath("org/model@main", options), "bad-model");
      expect(message).toMatch(/fetch it with: basedxl pull org\/model\.$/);
    } finally {
      rmSync(home, { recursive: true, force: true });
    }
  });

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
    ["no snapshot", [], null, /has no snapshot; `basedxl pull` fetches it/],
    ["a refs/main that leads out", ["a", "b"], "../..", /has 2 snapshots and no refs\/main/],
  ] as const) {
    test(`with ${what} is refused`, async () => {
      const folder = cached([...snapshots], main);
      expect(await refusal(() => pathOf(folder), "bad-model")).toMatch(sentence);
    });
  }
});
