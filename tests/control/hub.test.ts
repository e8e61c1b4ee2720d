/**
 * Names, addresses and variables of the hub, as text: nothing is fetched.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { cacheError } from "../../src/hub/cache.ts";
import { isFileName, showReference } from "../../src/hub/reference.ts";
import { hubCacheFolder, hubSettings } from "../../src/hub/settings.ts";
import { hubReference } from "../../src/hub.ts";
import { refusal } from "../support/refusal.ts";

const top = mkdtempSync(join(tmpdir(), "basedxl-hub-"));
afterAll(() => rmSync(top, { recursive: true, force: true }));

describe("references", () => {
  for (const [value, wanted] of [
    ["org/model", "org/model"],
    ["org/model@main", "org/model"],
    ["org/model@v1.0", "org/model@v1.0"],
    ["org/model@refs/pr/3", "org/model@refs/pr/3"],
    ["org/model:a.safetensors", "org/model:a.safetensors"],
    ["org/model@fp16:sub folder/a.safetensors", "org/model@fp16:sub folder/a.safetensors"],
    ["org/model/a.safetensors", "org/model:a.safetensors"],
    ["org/model/sub/a.safetensors@v1", "org/model@v1:sub/a.safetensors"],
    ["https://huggingface.co/org/my-model", "org/my-model"],
    ["http://www.huggingface.co/org/my-model/", "org/my-model"],
    ["https://hf.co/org/model_1.0", "org/model_1.0"],
    ["huggingface.co/org/model", "org/model"],
    ["HTTPS://HuggingFace.co/org/model?library=diffusers#usage", "org/model"],
    ["https://huggingface.co/org/model/tree/main", "org/model"],
    ["https://huggingface.co/org/model/tree/fp16/unet", "org/model@fp16"],
    ["https://huggingface.co/org/model/blob/main/a.safetensors", "org/model:a.safetensors"],
    [
      "https://huggingface.co/org/model/resolve/v1/sub/a%20b.safetensors?download=true",
      "org/model@v1:sub/a b.safetensors",
    ],
    ["https://huggingface.co/org/model.git", "org/model"],
    ["https://huggingface.co/org/model/commit/0a1b", "org/model@0a1b"],
    ["https://huggingface.co/org/model/discussions/3", "org/model"],
    ["https://hf.co/org/model/tree/refs%2Fpr%2F3", "org/model@refs/pr/3"],
    ["https://hf-mirror.com/org/model", "org/model"],
    ["https://hub.local:8080/base/org/model/blob/main/a.safetensors", "org/model:a.safetensors"],
    ["hf://org/model@fp16/a.safetensors", "org/model@fp16:a.safetensors"],
    ["hf://org/model", "org/model"],
    ["hf://org/model@fp16/unet", "org/model@fp16"],
    ["https://huggingface.co/org/model/blob/main/model_index.json", "org/model"],
  ] as const) {
    test(value, () => {
      const reference = hubReference(value, "https://hub.local:8080/base");
      expect(reference && showReference(reference)).toBe(wanted);
    });
  }

  for (const value of [
    "model",
    "./org/model",
    "../org/model",
    "/org/model",
    "~/org/model",
    "org/model.safetensors",
    "models/sub/folder",
    "org/model/a.ckpt",
    "org//model",
    "org/mo--del",
    "org/..",
    "org/model@../../x",
    "org/model@-x y",
    "org/model:../x.safetensors",
    "org/model:/etc/x.safetensors",
    "https://example.org/org/model",
    "https://huggingface.co/datasets/org/data",
    "https://huggingface.co",
    "https://huggingface.co/org/model/resolve/main/..%2F..%2Fx.safetensors",
    `org/${"x".repeat(200)}`,
  ]) {
    test(`${value.slice(0, 80)} is none`, () => expect(hubReference(value)).toBeNull());
  }

  test("whatever is typed: no path that leaves the cache", () => {
    const letters = fc.constantFrom(..."./@:%2Fa-~ \\\0");
    fc.assert(
      fc.property(fc.string({ unit: letters, maxLength: 30 }), (text) => {
        const reference = hubReference(text) ?? hubReference(`org/model@${text}`);
        if (reference === null) return;
        const parts = Object.values(reference).flatMap((part) => part?.split("/") ?? []);
        expect(parts).not.toContain("..");
        expect(parts).not.toContain("");
      }),
    );
  });

  test("names of files stay below their folder", () => {
    for (const name of ["a", "a/b.json", "a..b/c", "é/ü"]) expect(isFileName(name)).toBe(true);
    for (const name of ["", "/a", "a/", "..", "a/../b", "a\0", "a\nb", "a\\b", "x".repeat(300)]) {
      expect(isFileName(name)).toBe(false);
    }
  });
});

test("a cache that cannot be written to is named, with what helps", () => {
  const failed = (code: string) => {
    const error = Object.assign(new Error(`${code}: x`), { code });
    return (cacheError(error, "/cache/models--a--b/blobs/x", "/cache") as Error).message;
  };
  expect(failed("ENOSPC")).toMatch(/^The disk is full \(\/cache\): free .* goes on from there/);
  expect(failed("EDQUOT")).toMatch(/^The quota of the disk is used up \(\/cache\)/);
  expect(failed("EROFS")).toMatch(/^Cannot write \/cache\/models.*\(a read-only disk\).*HF_HOME/);
  const bug = new TypeError("x");
  expect(cacheError(bug, "/cache/x", "/cache")).toBe(bug);
});

describe("variables", () => {
  const home = "/people/me";
  test.each([
    [{}, `${home}/.cache/huggingface/hub`],
    [{ XDG_CACHE_HOME: "/caches" }, "/caches/huggingface/hub"],
    [{ HF_HOME: "/hf" }, "/hf/hub"],
    [{ HF_HOME: "/hf", XDG_CACHE_HOME: "/caches" }, "/hf/hub"],
    [{ HF_HOME: "$HOME/hf" }, `${home}/hf/hub`],
    [{ HUGGINGFACE_HUB_CACHE: "/old", HF_HOME: "/hf" }, "/old"],
    [{ HF_HUB_CACHE: "/new", HUGGINGFACE_HUB_CACHE: "/old" }, "/new"],
  ])("%j: %s", (env, folder) => {
    expect(hubCacheFolder({ HOME: home, ...env })).toBe(folder);
  });

  test("the token, without what editors put around it", () => {
    const path = join(top, "token");
    writeFileSync(path, "hf_file\r\n");
    const from = (env: Record<string, string>) => {
      const { token, tokenSource } = hubSettings({ HOME: home, HF_HOME: top, ...env });
      return [token, tokenSource];
    };
    expect(from({})).toEqual(["hf_file", path]);
    expect(from({ HF_TOKEN: " hf_env\n" })).toEqual(["hf_env", "HF_TOKEN"]);
    expect(from({ HUGGING_FACE_HUB_TOKEN: "hf_old" })).toEqual([
      "hf_old",
      "HUGGING_FACE_HUB_TOKEN",
    ]);
    expect(from({ HF_TOKEN_PATH: join(top, "none") })).toEqual([null, null]);
    expect(from({ HF_HUB_DISABLE_IMPLICIT_TOKEN: "1", HF_TOKEN: "x" })).toEqual([null, null]);
  });

  test("a token that is none is refused without being shown", async () => {
    const message = await refusal(() => hubSettings({ HF_TOKEN: "hf_a\nhf_b" }), "bad-model");
    expect(message).toStartWith("The variable HF_TOKEN holds no token");
    expect(message).not.toContain("hf_a");
  });

  test("the hub's address", async () => {
    const endpoint = (HF_ENDPOINT: string) => hubSettings({ HOME: home, HF_ENDPOINT }).endpoint;
    expect(endpoint("")).toBe("https://huggingface.co");
    expect(endpoint("https://hf-mirror.com/")).toBe("https://hf-mirror.com");
    expect(endpoint("http://host:80/base/")).toBe("http://host:80/base");
    for (const value of ["hf-mirror.com", "ftp://x", "https://", "https://me:secret@host"]) {
      const message = await refusal(() => endpoint(value), "bad-model");
      expect(message).toMatch(/HF_ENDPOINT is ".*", which is no address/);
      expect(message).not.toContain("secret");
    }
  });

  test("offline, as Python reads it", () => {
    for (const [value, wanted] of [
      ["1", true],
      ["yes", true],
      ["0", false],
      ["", false],
    ] as const) {
      expect(hubSettings({ HOME: home, HF_HUB_OFFLINE: value }).offline).toBe(wanted);
    }
  });
});
