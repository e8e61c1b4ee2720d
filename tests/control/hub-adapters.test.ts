/**
 * IP-Adapters by ids of the hub: the adapter, and of the image encoders in its repository the one
 * that fits it; each wrong id is one sentence.
 */
import { afterAll, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { fetchRequestFiles } from "../../src/pipeline/fetch-files.ts";
import { readIpAdapters } from "../../src/pipeline/ip-adapters.ts";
import { requestFiles } from "../../src/pipeline/request-files.ts";
import { asFlag } from "../../src/settings/values.ts";
import { settingsFor, startHubServer } from "../support/hub-server.ts";
import {
  encoderConfig,
  folder,
  ipImage,
  removeIpAdapters,
  writeIpAdapters,
} from "../support/ip-adapter-files.ts";
import { refusal } from "../support/refusal.ts";

const server = await startHubServer();
const top = mkdtempSync(join(tmpdir(), "basedxl-hub-ip-"));
const before = { ...process.env };
afterAll(() => {
  server.stop();
  removeIpAdapters();
  rmSync(top, { recursive: true, force: true });
  process.env = before;
});

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const paths = writeIpAdapters();
const weights = readFileSync(join(folder, "models/image_encoder/model.safetensors"));
const other = { ...encoderConfig, hidden_size: 64, projection_dim: 48 };
const encoder = (name: string, config: object) => ({
  [`${name}/image_encoder/config.json`]: Buffer.from(JSON.stringify(config)),
  [`${name}/image_encoder/model.safetensors`]: config === other ? Buffer.alloc(5000) : weights,
});

let cache = "";

beforeEach(() => {
  cache = mkdtempSync(join(top, "cache-"));
  Object.assign(process.env, { HF_HUB_CACHE: cache, HF_ENDPOINT: server.endpoint });
  server.requests.length = 0;
  server.repositories.clear();
  server.repositories.set("h94/IP-Adapter", {
    commit: "0123456789abcdef0123456789abcdef01234567",
    files: {
      "sdxl_models/plain.safetensors": readFileSync(paths.plain),
      "sdxl_models/plus.safetensors": readFileSync(paths.plus),
      "sdxl_models/plain.bin": Buffer.from("pickled"),
      ...encoder("sdxl_models", other),
      ...encoder("models", encoderConfig),
    },
  });
});

async function read(ipAdapter: string[], ipEncoder: string[] = []) {
  const request = { prompt: "", ipAdapter, ipEncoder, ipImage: [ipImage(0)] };
  await fetchRequestFiles(request, model, [], { settings: settingsFor(server, cache) });
  return await readIpAdapters(request, model, requestFiles([]), asFlag);
}

const fetched = () =>
  readdirSync(cache, { recursive: true, encoding: "utf8" })
    .filter((path) => path.includes("snapshots") && /\.\w+$/.test(path))
    .map((path) => path.split("/").slice(3).join("/"))
    .sort();

test.each([
  ["h94/IP-Adapter:sdxl_models/plain.safetensors", "plain"],
  ["h94/IP-Adapter/sdxl_models/plus.safetensors", "plus"],
] as const)("%s, with the encoder that fits", async (id, kind) => {
  const [use] = await read([id]);
  expect(use!.adapter.config.projection).toBe(kind);
  expect(use!.adapter.name).toBe(kind);
  expect(dirname(use!.encoder.path)).toEndWith("/models");
  expect(fetched()).toEqual([
    "models/image_encoder/config.json",
    "models/image_encoder/model.safetensors",
    `sdxl_models/${kind}.safetensors`,
  ]);
  // A second run asks for nothing.
  server.requests.length = 0;
  await read([id]);
  expect(server.requests).toEqual([]);
});

test.each([
  ["h94/none:a.safetensors", [], /^"h94\/none:a.safetensors" is not on this machine\. .*h94\/none/],
  ["h94/IP-Adapter", [], /h94\/IP-Adapter has several models: .*plain\.safetensors/],
  ["h94/IP-Adapter:none.safetensors", [], /has no file none\.safetensors; it has .*plain/],
  ["h94/IP-Adapter:sdxl_models/plain.bin", [], /is no \.safetensors file/],
  ["h94/IP-Adapter@v9:sdxl_models/plain.safetensors", [], /v9/],
  [
    "h94/IP-Adapter:sdxl_models/plain.safetensors",
    ["h94/IP-Adapter:sdxl_models/plus.safetensors"],
    /plus\.safetensors is an adapter \(IP-Adapter\), not an image encoder/,
  ],
  [
    "h94/IP-Adapter:sdxl_models/plain.safetensors",
    ["h94/IP-Adapter:models/image_encoder/model.safetensors"],
    /whose heads only a config\.json tells: name its folder instead/,
  ],
] as [string, string[], RegExp][])(
  "%s with encoders %j: one sentence",
  async (id, encoders, says) => {
    const error = await read([id], encoders).then(
      () => null,
      (failure: Error) => failure,
    );
    expect(error?.message).toMatch(says);
    expect(error?.message).not.toContain("\n");
  },
);

test("a repository without an encoder that fits", async () => {
  const { files } = server.repositories.get("h94/IP-Adapter")!;
  for (const name of Object.keys(files)) if (name.startsWith("models/")) delete files[name];
  const id = "h94/IP-Adapter:sdxl_models/plain.safetensors";
  const sentence = await refusal(() => read([id]), "bad-model");
  expect(sentence).toMatch(/needs .* and there is none beside it: .* --ip-encoder\.$/);
});
