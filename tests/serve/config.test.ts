/**
 * The server's settings: three sources in their order, and a sentence for what is wrong in each
 * that names it as its source does.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readConfig, variableOf } from "../../src/serve/config.ts";
import { serveGroups, serveSettings } from "../../src/serve/settings.ts";
import { refusal } from "../support/refusal.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-serve-config-"));
afterAll(() => rmSync(folder, { recursive: true }));

const key = "0123456789abcdef";

function toml(text: string): string {
  const path = join(folder, `${crypto.randomUUID()}.toml`);
  writeFileSync(path, text);
  return path;
}

function read(flags: Record<string, unknown> = {}, env: Record<string, string> = {}) {
  return readConfig({ flags, env });
}

test("without anything it listens for this machine alone", () => {
  const config = read();
  expect(config).toMatchObject({ host: "127.0.0.1", port: 7860, models: [], rankCount: 1 });
  expect(config).toMatchObject({ share: "auto", apiKeys: [], outputs: "outputs", format: "png" });
});

test("flags go before variables, and variables before the file", () => {
  const file = toml(
    "port = 1\nmax_queue = 2\nmax_models = 3\nmodel = ['a', 'b']\nmetadata = false",
  );
  const env = { BASEDXL_SERVE_CONFIG_FILE: file, BASEDXL_SERVE_MAX_QUEUE: "5" };
  expect(read({ port: "9" }, { ...env, BASEDXL_SERVE_PORT: "8" })).toMatchObject({
    ...{ port: 9, maxQueue: 5, maxModels: 3, models: ["a", "b"], metadata: false },
  });
  expect(read({ model: "x\0y" }, env).models).toEqual(["x", "y"]);
  expect(read({}, { BASEDXL_SERVE_MODEL: "x, y" }).models).toEqual(["x", "y"]);
});

test("every setting has a flag, a variable and a group of --help", () => {
  const rows = Object.values(serveSettings);
  expect(new Set(rows.map(variableOf)).size).toBe(rows.length);
  const groups: readonly string[] = serveGroups;
  for (const { group = "" } of rows) expect(groups).toContain(group);
});

describe("is refused, by name", () => {
  test.each([
    [{ port: "80000" }, {}, "--port must be a whole number from 0 to 65535"],
    [{}, { BASEDXL_SERVE_PORT: "x" }, "BASEDXL_SERVE_PORT must be a whole number"],
    [{}, { BASEDXL_SERVE_PROT: "1" }, "Did you mean BASEDXL_SERVE_PORT?"],
    [{}, { BASEDXL_SERVE_METADATA: "maybe" }, "BASEDXL_SERVE_METADATA must be true or false"],
    [{ "config-file": toml("prot = 1") }, {}, "has prot, which is no setting. Did you mean port?"],
    [{ "config-file": toml("port = '1'") }, {}, "port in "],
    [{ "config-file": toml("port = ") }, {}, " is no TOML: "],
    [{ "config-file": join(folder, "none.toml") }, {}, "cannot be read (ENOENT)"],
    [{ host: "0.0.0.0" }, {}, "--host 0.0.0.0 lets other machines in: give them a key"],
    [{ host: "192.168.1.2" }, {}, "give them a key with --api-key"],
    [{ model: "a\0a" }, {}, "--model a is given twice"],
    [{ queue: "http://x" }, {}, "--queue must be the address of a Redis"],
    [{ store: "s3://images" }, {}, "--store is for workers: it needs --queue"],
    [{ store: "images", queue: "redis://x" }, {}, "--store must be s3://BUCKET/PREFIX"],
    [{ share: "3x2", gpus: "4" }, {}, "with R times P equal to --gpus 4, such as 2x2"],
    [{ "allow-origin": "example.org" }, {}, "must be an origin, such as https://"],
    [{ "api-key": `${key}\0${key}` }, {}, "Two keys of --api-key are called default"],
  ])("%j %j", async (flags, env, sentence) => {
    const read = () => readConfig({ flags, env: env as Record<string, string> });
    expect(await refusal(read, "bad-option")).toContain(sentence);
  });

  test("a short key, without showing it", async () => {
    const message = await refusal(() => read({ "api-key": "secret" }), "bad-option");
    expect(message).toContain("a key of 16 visible ASCII characters or more");
    expect(message).not.toContain("secret");
  });
});

test("other machines may come in with keys, which have names", () => {
  const config = read({ host: "0.0.0.0", "api-key": `anna=${key}\0${key}x` });
  expect(config.apiKeys).toEqual([
    { name: "anna", key },
    { name: "default", key: `${key}x` },
  ]);
  expect(() => read({ host: "::1" })).not.toThrow();
  expect(() => read({ host: "localhost" })).not.toThrow();
});
