/**
 * Which files of a repository are fetched for a model, a VAE or a LoRA, and what is opened of them.
 */
import { afterAll, beforeEach, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { hubReference, openHubFile, openHubModel, openHubVae } from "../../src/hub.ts";
import { fetchModelFiles, findModelFile, openModelFile } from "../../src/models/hub-files.ts";
import { random } from "../support/hub-bytes.ts";
import { lfsBytesMin, settingsFor, startHubServer } from "../support/hub-server.ts";
import { refusal } from "../support/refusal.ts";

const server = await startHubServer();
const top = mkdtempSync(join(tmpdir(), "basedxl-hub-"));
afterAll(() => {
  server.stop();
  rmSync(top, { recursive: true, force: true });
});

const commit = "0123456789abcdef0123456789abcdef01234567";
/** An empty one. */
const safetensors = Buffer.from("\x02\0\0\0\0\0\0\0{}");
let cache = "";

beforeEach(() => {
  cache = mkdtempSync(join(top, "cache-"));
  server.requests.length = 0;
  server.pageLength = 1000;
  server.repositories.clear();
});

const settings = () => settingsFor(server, cache);
const open = (value: string) => openHubModel(hubReference(value)!, { settings: settings() });
const refused = (value: string) => refusal(() => open(value), "download");

const lfs = (seed: number) => random(lfsBytesMin, seed);
const small = (text: string) => Buffer.from(text);
const folder = (weights: Record<string, Uint8Array>) => {
  const components = {
    "text_encoder/model.safetensors": lfs(10),
    "text_encoder_2/model.safetensors": lfs(11),
    "vae/diffusion_pytorch_model.safetensors": lfs(12),
    "vae/diffusion_pytorch_model.fp16.safetensors": lfs(13),
    "vae_1_0/diffusion_pytorch_model.safetensors": lfs(14),
  };
  const configs = ["text_encoder", "text_encoder_2", "unet", "vae"].map((name) => {
    return [`${name}/config.json`, small(`{"of":"${name}"}`)] as const;
  });
  const others = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer_2/vocab.json",
    "unet/model.onnx",
    "README.md",
    "sd_xl_base_1.0.safetensors",
  ].map((name) => [name, small(name === "tokenizer_2/vocab.json" ? "tokenizer/vocab.json" : name)]);
  return {
    commit,
    files: { ...Object.fromEntries([...configs, ...others]), ...components, ...weights },
  };
};
const fetched = (path: string) =>
  readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(path.length + 1))
    .sort();
const always = [
  "model_index.json",
  "scheduler/scheduler_config.json",
  "text_encoder/config.json",
  "text_encoder/model.safetensors",
  "text_encoder_2/config.json",
  "text_encoder_2/model.safetensors",
  "tokenizer/merges.txt",
  "tokenizer/tokenizer_config.json",
  "tokenizer/vocab.json",
  "tokenizer_2/vocab.json",
  "unet/config.json",
  "vae/config.json",
  "vae/diffusion_pytorch_model.fp16.safetensors",
];
const index = (...names: string[]) =>
  small(JSON.stringify({ weight_map: Object.fromEntries(names.map((name, i) => [i, name])) }));

for (const [what, weights, wanted] of [
  [
    "the fp16 variant",
    {
      "diffusion_pytorch_model.safetensors": lfs(1),
      "diffusion_pytorch_model.fp16.safetensors": lfs(2),
    },
    ["diffusion_pytorch_model.fp16.safetensors"],
  ],
  [
    "shards of the index",
    {
      "diffusion_pytorch_model.safetensors.index.json": index("a.safetensors", "b.safetensors"),
      "a.safetensors": lfs(1),
      "b.safetensors": lfs(2),
      "c.safetensors": lfs(3),
    },
    ["a.safetensors", "b.safetensors", "diffusion_pytorch_model.safetensors.index.json"],
  ],
  [
    "the plain weights where a shard of the variant is missing",
    {
      "diffusion_pytorch_model.fp16.safetensors.index.json": index(
        "a.safetensors",
        "b.safetensors",
      ),
      "a.safetensors": lfs(1),
      "diffusion_pytorch_model.safetensors": lfs(2),
    },
    ["diffusion_pytorch_model.safetensors"],
  ],
] as [string, Record<string, Uint8Array>, string[]][]) {
  test(`of a diffusers repository: ${what}`, async () => {
    const unet = Object.entries(weights).map(([name, bytes]) => [`unet/${name}`, bytes]);
    server.repositories.set("org/sdxl", folder(Object.fromEntries(unet)));
    server.pageLength = 3;
    const { path } = await open("org/sdxl");
    const names = wanted.map((name) => `unet/${name}`);
    expect(fetched(path)).toEqual([...always, ...names].sort());
    server.requests.length = 0;
    expect((await open("org/sdxl")).path).toBe(path);
    expect(server.requests).toEqual([]);
    // One file gone, as after a clean-up by hand: it is fetched again.
    rmSync(join(path, "vae/config.json"));
    await open("org/sdxl");
    expect(fetched(path)).toEqual([...always, ...names].sort());
  });
}

test("an index that names what is not beside it is refused", async () => {
  const weights = {
    "unet/diffusion_pytorch_model.safetensors.index.json": index("../x.safetensors"),
  };
  server.repositories.set("org/sdxl", folder(weights));
  expect(await refused("org/sdxl")).toMatch(/names no shards beside it/);
});

test("a config that is no text is not fetched", async () => {
  server.repositories.set(
    "org/sdxl",
    folder({ "unet/diffusion_pytorch_model.safetensors": lfs(1) }),
  );
  server.fault = ({ path }) => {
    if (!path.includes("/tree/")) return undefined;
    const { files } = server.repositories.get("org/sdxl")!;
    const entries = Object.entries(files).map(([path, bytes]) => {
      const size = path === "unet/config.json" ? 1e9 : bytes.length;
      return { type: "file", path, size, oid: "0".repeat(40) };
    });
    return { body: JSON.stringify(entries) };
  };
  expect(await refused("org/sdxl")).toMatch(/unet\/config\.json has 1\.00 GB, too much/);
  server.fault = () => undefined;
});

test("pickled weights are named", async () => {
  server.repositories.set("org/sdxl", folder({ "unet/diffusion_pytorch_model.bin": lfs(1) }));
  expect(await refused("org/sdxl")).toMatch(/no whole safetensors weights in unet, only pickled/);
});

test("of several single files none, by their names; a named one", async () => {
  const files = { "a.safetensors": lfs(1), "b/c.safetensors": lfs(2), "d.ckpt": lfs(3) };
  server.repositories.set("org/many", { commit, files });
  expect(await refused("org/many")).toMatch(
    /several models: it has a\.safetensors, b\/c\.safetensors; name one, such as org\/many:a\./,
  );
  const { path } = await open("org/many:b/c.safetensors");
  expect(fetched(dirname(dirname(path)))).toEqual(["b/c.safetensors"]);
  expect((await open("org/many/a.safetensors")).path).toEndWith("/a.safetensors");
  // The one that is there is not taken for the whole repository.
  expect(await refused("org/many")).toMatch(/has several models/);
  expect(await refused("org/many:d.ckpt")).toMatch(/is no \.safetensors file/);
  server.repositories.set("org/none", { commit, files: { "d.ckpt": lfs(3) } });
  expect(await refused("org/none")).toMatch(/no \.safetensors file \(it has d\.ckpt\)/);
});

test("a VAE: of a model, of its own repository, as a single file", async () => {
  const openVae = async (id: string) => {
    const { path } = await openHubVae(hubReference(id)!, { settings: settings() });
    return path;
  };
  server.repositories.set("org/sdxl", folder({ "unet/diffusion_pytorch_model.bin": lfs(1) }));
  const inside = await openVae("org/sdxl");
  expect(fetched(dirname(inside))).toEqual(always.filter((name) => name.startsWith("vae/")));
  const own = {
    "config.json": small("{}"),
    "diffusion_pytorch_model.safetensors": lfs(2),
    "sdxl_vae.safetensors": lfs(3),
  };
  server.repositories.set("org/vae", { commit, files: own });
  expect(fetched(await openVae("org/vae"))).toEqual([
    "config.json",
    "diffusion_pytorch_model.safetensors",
  ]);
  server.requests.length = 0;
  expect(await openVae("org/sdxl")).toBe(inside);
  expect(server.requests).toEqual([]);
  expect(await openVae("org/vae:sdxl_vae.safetensors")).toEndWith("/sdxl_vae.safetensors");
  // A part of a model is not the model.
  expect(await refused("org/sdxl")).toMatch(/only pickled/);
});

test("--vae and --lora take ids of the hub, after what is here by that name", async () => {
  const files = { "pytorch_lora_weights.safetensors": lfs(1) };
  server.repositories.set("org/lora", { commit, files });
  const hub = { settings: settings() };
  const models = join(cache, "models");
  const named = ["org", "lora.safetensors"];
  mkdirSync(join(models, "loras", "org"), { recursive: true });
  writeFileSync(join(models, "loras", ...named), safetensors);
  const here = await openModelFile("lora", "org/lora", [models], hub);
  expect(here).toBe(join(models, "loras", ...named));
  await fetchModelFiles("lora", [{ file: "org/lora" }, { file: 5 }, null], [models], hub);
  expect(server.requests).toEqual([]);
  await fetchModelFiles("lora", [{ file: "org/lora" }], [], hub);
  expect(await openModelFile("vae", "org/lora", [], hub)).toContain("models--org--lora");
  const before = process.env.HF_HUB_CACHE;
  process.env.HF_HUB_CACHE = cache;
  try {
    expect(findModelFile("lora", "org/lora", [])).toEndWith("/pytorch_lora_weights.safetensors");
    const message = await refusal(
      () => findModelFile("lora", "org/other:a.safetensors", []),
      "bad-model",
    );
    expect(message).toMatch(/fetch it with: basedxl pull org\/other:a\.safetensors\.$/);
  } finally {
    if (before === undefined) delete process.env.HF_HUB_CACHE;
    else process.env.HF_HUB_CACHE = before;
  }
  const gone = await refusal(() => openModelFile("lora", "org/other", [], hub), "download");
  expect(gone).toMatch(/^"org\/other" is not on this machine\. The hub has no model org\/other/);
});

test("a LoRA by its usual name", async () => {
  const files = { "pytorch_lora_weights.safetensors": lfs(1), "other.safetensors": lfs(2) };
  server.repositories.set("org/lora", { commit, files });
  const { path } = await openHubFile(hubReference("org/lora")!, { settings: settings() });
  expect(path).toEndWith("/pytorch_lora_weights.safetensors");
  const peft = { "x/adapter_model.safetensors": lfs(1), "x/adapter_config.json": small("{}") };
  server.repositories.set("org/peft", {
    commit,
    files: { ...peft, "config.json": small("{x}") },
  });
  const adapter = await openHubFile(hubReference("org/peft")!, { settings: settings() });
  expect(fetched(dirname(adapter.path))).toEqual([
    "adapter_config.json",
    "adapter_model.safetensors",
  ]);
});
