/**
 * docs/limits.md against the code: every figure is that of its constant, every limit of a reader of
 * foreign bytes is in it, and what is refused is refused in one sentence: here, or in the test that
 * is named here.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "citty";
import { checkSecret } from "../../src/distributed/rendezvous/secret.ts";
import { embeddingFile } from "../../src/embeddings/file.ts";
import { BasedXLError } from "../../src/errors.ts";
import { readImage } from "../../src/image/read.ts";
import { collectLimited, readLimited, readLimitedFile, TooLong } from "../../src/limited-read.ts";
import { parseUnetConfig } from "../../src/models/config.ts";
import { readTextFile } from "../../src/models/files.ts";
import { readSafetensorsHeader } from "../../src/models/safetensors-header.ts";
import { choose } from "../../src/prompt/dynamic.ts";
import { readConfig } from "../../src/serve/config.ts";
import { parseSampleOptions } from "../../src/settings/options.ts";
import { sampleEmptyAllowed, sampleFlags } from "../../src/settings/sample-flags.ts";
import { withPrompts } from "../../src/settings/sample-prompts.ts";
import { parseAxes } from "../../src/sheets.ts";
import { normalizeFlags } from "../../src/terminal/flags.ts";
import { golden } from "../support/linked-model.ts";

const root = join(import.meta.dir, "../..");
const folder = mkdtempSync(join(tmpdir(), "basedxl-limits-"));
afterAll(() => rmSync(folder, { recursive: true }));
const read = (path: string) => readFileSync(join(root, path), "utf8");

interface Row {
  what: string;
  limit: string;
  beyond: string;
  /** File and constant, as "src/image/read.ts pixelCountMax". */
  place: string;
}

const line = /^\|([^|]+)\|([^|]+)\|([^|]+)\| `([\w./-]+)` `(\w+)` \|$/gm;
const rows: Row[] = [...read("docs/limits.md").matchAll(line)].map(
  ([, what = "", limit = "", beyond = "", path, constant]) => {
    const place = `${path} ${constant}`;
    return { what: what.trim(), limit: limit.trim(), beyond: beyond.trim(), place };
  },
);

/** Limits of readers that no user can meet, or that others in the table imply. */
const inner = [
  "src/metadata/from-comfyui.ts stepCountMax",
  "src/image/webp-texts.ts chunkCountMax",
  "src/image/avif-texts.ts metaBytesMax",
  "src/image/files.ts linkCountMax",
  "src/models/safetensors-header.ts elementCountMax",
  "src/models/safetensors-json.ts countMax",
  "src/models/taesd.ts levelCountMax",
  "src/hub/settings.ts tokenBytesMax",
  "src/library/hashes.ts entryCountMax",
  "src/library/hashes.ts cacheBytesMax",
  "src/adapters/recipes.ts nameLengthMax",
  "src/adapters/identify.ts noteLengthMax",
  "src/adapters/plan.ts cachedFilesMax",
  "src/distributed/rendezvous/coordinator.ts heartbeatCountMax",
  "src/distributed/rendezvous/client.ts lossCountMax",
];

/** Names of what is counted: other constants that end in Max are no limits of what is read. */
const counted = "(\\w*(?:bytes|count|depth|length|pixels|text|files)Max)";
const countMax = new RegExp(`^(?:export )?const ${counted}(?:: \\w+)? = [\\d_*<>n -]+;`, "gim");

/** Numbers of a constant's expression, such as 2 ** 26 or 64 << 20. */
function constantOf(place: string): number {
  const [path = "", name] = place.split(" ");
  const found = new RegExp(`const ${name}(?:: \\w+)? = ([\\d_*<>n ()-]+);`).exec(read(path));
  if (found === null) return Number.NaN;
  return Number(new Function(`return ${found[1]}`)());
}

function numberOf(limit: string): number {
  const [, digits = "", unit] = /^([\d,]+)(?: (KiB|MiB|GiB|bytes|ms))?$/.exec(limit) ?? [];
  const factors: Record<string, number> = { KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 };
  return Number(digits.replaceAll(",", "")) * (factors[unit ?? ""] ?? 1);
}

describe("docs/limits.md", () => {
  test.each(rows)("$what: $limit", ({ limit, place, beyond }) => {
    expect(constantOf(place)).toBe(numberOf(limit));
    expect(["refused", "cut", "text"]).toContain(beyond);
  });

  test("has every limit of what reads foreign bytes", () => {
    const folders = "image,metadata,models,hub,library,adapters,embeddings,prompt,distributed";
    const files = [...new Bun.Glob(`src/{${folders}}/**/*.ts`).scanSync(root)];
    const places = files.flatMap((path) =>
      [...read(path).matchAll(countMax)].map(([, name]) => `${path} ${name}`),
    );
    const known = [...inner, ...rows.map(({ place }) => place)];
    expect(places.filter((place) => !known.includes(place))).toEqual([]);
    expect(inner.filter((place) => !Number.isFinite(constantOf(place)))).toEqual([]);
  });
});

// --- refusals ---

/** A file of `bytes` zeros, which takes no room, with `head` at its beginning. */
function large(name: string, bytes: number, head: Uint8Array | string = ""): string {
  const path = join(folder, name);
  writeFileSync(path, head);
  truncateSync(path, bytes);
  return path;
}

function safetensors(name: string, header: string, headerBytes = header.length): string {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(headerBytes));
  return large(name, 8 + headerBytes, Buffer.concat([length, Buffer.from(header)]));
}

const unet = () => JSON.parse(readFileSync(join(golden, "unet/config.json"), "utf8"));
const image = { name: "--image", channels: 3, background: "#000" } as const;
const tensor = '{"dtype":"F16","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,2]}';
const sample = (...words: string[]) => {
  const flags = normalizeFlags(words, sampleFlags, { emptyAllowed: sampleEmptyAllowed });
  return parseSampleOptions(parseArgs(flags, sampleFlags));
};

/** What refuses a row's limit plus one, or the test that does. */
const refusals: Record<string, string | (() => unknown)> = {
  "src/models/safetensors-header.ts headerBytesMax": () =>
    readSafetensorsHeader(safetensors("header", "{", 100_000_001)),
  "zig/weights/safetensors.zig header_bytes_max": "tests/native/header-parity.test.ts",
  "src/models/safetensors-json.ts depthMax": () =>
    readSafetensorsHeader(safetensors("depth", `{"__metadata__":${"[".repeat(128)}`)),
  "zig/weights/safetensors.zig depth_max": "zig/weights/safetensors.zig: nested deeper than",
  "src/models/safetensors-header.ts tensorCountMax":
    "tests/control/safetensors-header.test.ts: more than 100000 tensors",
  "zig/weights/safetensors.zig tensor_count_max": "zig/weights/safetensors.zig: names more than",
  "src/models/safetensors-header.ts rankMax": () =>
    readSafetensorsHeader(safetensors("rank", `{"a":${tensor}}  `)),
  "zig/weights/safetensors.zig rank_max": "tests/native/header-parity.test.ts",
  "src/models/files.ts textBytesMax": () => readTextFile(large("text", 2 ** 28 + 1), "needed"),
  "src/models/config-reader.ts levelCountMax": () =>
    parseUnetConfig("unet", { ...unet(), block_out_channels: Array(9).fill(32) }),
  "zig/model/config.zig level_count_max": "zig/model/config.zig: 1 to 8 levels",
  "src/models/config-unet.ts layersPerBlockMax": () =>
    parseUnetConfig("unet", { ...unet(), layers_per_block: 8 }),
  "src/settings/lora.ts loraCountMax": "tests/control/loras.test.ts: takes 64 LoRAs at most",
  "zig/weights/adapters.zig target_count_max": "zig/abi/checks.zig: adapted weights outside 0 to",
  "src/native/abi.ts controlCountMax": () => sample(...Array(5).fill("--controlnet=a")),
  "zig/model/config.zig control_type_count_max": "zig/model/config.zig: tells at most 16 types",
  "src/pipeline/upscale.ts pixelCountMax": "tests/native/upscalers.test.ts: more than",
  "src/settings/embedding.ts embeddingCountMax": () =>
    sample(...Array(257).fill("--embedding=a.pt")),
  "src/embeddings/file.ts fileBytesMax": () =>
    embeddingFile("a", large("a.safetensors", 2 ** 26 + 100, "\x02\0\0\0\0\0\0\0{}")).read?.(
      {} as never,
    ),
  "src/settings/folder.ts folderCountMax": () => sample(...Array(101).fill("--models-dir=a")),
  "src/native/abi.ts chunkCountMax": "tests/control/prompts.test.ts: 64 are possible",
  "src/native/abi.ts promptCountMax": "tests/control/combined.test.ts: 16 are possible",
  "src/native/abi.ts promptSetCountMax": "tests/control/prompts.test.ts: different ones on the way",
  "src/prompt/dynamic.ts lengthMax": () =>
    choose("__a__", { seed: 1n, linesOf: () => ["__a____a__"] }),
  "src/settings/sample-prompts.ts textBytesMax": () =>
    withPrompts(sample("--prompt-file", large("words", 2 ** 26 + 1))),
  "src/native/abi.ts ipAdapterCountMax": () => sample(...Array(5).fill("--ip-adapter=a")),
  "src/native/abi.ts ipImageCountMax": () => sample(...Array(17).fill("--ip-image=a.png")),
  "src/native/abi.ts imageCountMax": () => sample("--num-images=65"),
  "src/native/abi.ts stepCountMax": () => sample("--steps=1001"),
  "src/native/abi.ts rankCountMax": () => sample("--gpus=17"),
  "src/image/read.ts imageBytesMax": () => readImage(large("image", 2 ** 30 + 1), image),
  "src/image/read.ts pixelCountMax": "tests/control/input-images.test.ts: 128 million are possible",
  "src/pipeline/input.ts extensionMax": "src/pipeline/input.ts: must be sides and pixels up to",
  "src/commands/cells.ts cellCountMax": "src/commands/cells.ts: are possible",
  "src/sheets/values.ts valueCountMax": () => parseAxes("steps=1-1001"),
  "src/hub/open.ts textBytesMax": "src/hub/open.ts: too much for a config",
  "src/hub/listing.ts jsonBytesMax": "src/hub/http.ts: MiB where a list of files",
  "src/hub/listing.ts filesMax": "src/hub/listing.ts: has more than",
  "src/hub/listing.ts pagesMax": "tests/control/hub-download.test.ts: has more than 1000 pages",
  "src/hub/http.ts redirectsMax": "tests/control/hub-download.test.ts: in a circle",
  "src/hub/blob.ts restartsMax": "src/hub/blob.ts: changes while it is fetched",
  "src/serve/config.ts fileBytesMax": () =>
    readConfig({ flags: { "config-file": large("toml", 2 ** 20 + 1) }, env: {} }),
  "src/serve/dialects/body.ts lengthMax": "tests/serve/access.test.ts: too-large",
  "src/serve/dialects/image-bytes.ts pixelsMax": "src/serve/dialects/image-bytes.ts: limitInput",
  "src/serve/dialects/comfyui/validate.ts nodeCountMax":
    "src/serve/dialects/comfyui/validate.ts: nodes.size > nodeCountMax",
  "src/distributed/connection.ts lineLengthMax":
    "tests/control/rendezvous-strangers.test.ts: .repeat(100_000)",
  "src/distributed/rendezvous/attempt.ts limitMsDefault":
    "tests/control/distributed.test.ts: who does not come is named",
  "src/distributed/rendezvous/secret.ts lengthMax": () => checkSecret("s".repeat(1001)),
};

describe("beyond a limit", () => {
  const refused = rows.filter(({ beyond }) => beyond === "refused");

  test("every refusal is tried", () => {
    expect(Object.keys(refusals).sort()).toEqual(refused.map(({ place }) => place).sort());
  });

  const tried = refused.filter(({ place }) => typeof refusals[place] === "function");
  test.each(tried)("$what: one sentence", async ({ place }) => {
    const refuse = refusals[place] as () => unknown;
    const error = await Promise.try(refuse).then(
      () => null,
      (each: unknown) => each,
    );
    expect(error).toBeInstanceOf(BasedXLError);
    expect((error as Error).message).toMatch(/^[^\n]{10,600}\.$/);
  });

  const named = refused.filter(({ place }) => typeof refusals[place] === "string");
  test.each(named)("$what: tried elsewhere", ({ place }) => {
    const [path = "", words = ""] = (refusals[place] as string).split(": ");
    expect(read(path).includes(words)).toBe(true);
  });

  test("what never ends takes no more than its limit", async () => {
    expect(() => readLimited("/dev/zero", 2 ** 20)).toThrow(TooLong);
    const forever = async function* () {
      for (;;) yield Buffer.alloc(2 ** 16);
    };
    await expect(collectLimited(forever(), 2 ** 20)).rejects.toThrow(TooLong);
    await expect(readLimitedFile("/dev/zero", 2 ** 20)).rejects.toThrow(TooLong);
    const path = large("small", 70_000, "abc");
    expect(readLimited(path, 2 ** 20).toString("latin1", 0, 3)).toBe("abc");
    expect(readLimited("/proc/self/status", 2 ** 20).length).toBeGreaterThan(100);
  });
});
