/**
 * `basedxl models` from the command line, in a tree like ComfyUI's with tiny files, and the cache
 * of hashes.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { ended } from "../../src/bench/support/binary.ts";
import { writeSparseFile } from "../../src/bench/support/single-file.ts";
import { type ModelRow, renderModels } from "../../src/commands/models-table.ts";
import { HashCache } from "../../src/library/hashes.ts";
import { createStatusLine } from "../../src/terminal/status.ts";
import { safetensorsBytes } from "../support/safetensors-bytes.ts";

// Each starts processes, which take long on a machine that builds something else.
setDefaultTimeout(120_000);

const root = join(import.meta.dir, "../..");
const folder = mkdtempSync(join(tmpdir(), "basedxl-models-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const bundled = join(root, "src/assets/mini-sdxl");
const cacheFolder = join(folder, "cache");

function put(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
  return path;
}

const lora = safetensorsBytes({
  "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": [1, 2],
  "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": [2, 1],
});
put("ui/models/loras/style/ink.safetensors", lora);
put("ui/models/loras/cut_lightning.safetensors", lora.subarray(0, lora.length - 3));
put("ui/models/loras/sdxl_lightning_4step_lora.safetensors", lora);
const marks = { v_pred: [0], ztsnr: [0], "model.diffusion_model.input_blocks.0.0.bias": [1] };
put(
  "ui/models/unet/marked.safetensors",
  safetensorsBytes(marks, { "modelspec.title": "my XL Turbo" }),
);
put("ui/models/loras/page.safetensors", "<!doctype html><html>log in</html>");
put("ui/models/loras/red\x1b[31m.pt", "\x80\x02}q\0(X\x10\0\0");
put(
  "ui/models/embeddings/worst.safetensors",
  safetensorsBytes({ clip_l: [2, 768], clip_g: [2, 1280] }),
);
put("ui/extra_model_paths.yaml", "more:\n  checkpoints: ../more\n  vae: gone\n");
mkdirSync(join(folder, "more"));
symlinkSync(bundled, join(folder, "more/mini"));
symlinkSync("nowhere", join(folder, "more/lost.safetensors"));

async function models(...args: string[]) {
  const command = [process.execPath, join(root, "src/main.ts"), "models", ...args];
  const { BASEDXL_MODELS_DIR: _, ...rest } = process.env;
  const env = { ...rest, HF_HOME: join(folder, "hf"), BASEDXL_CACHE_DIR: cacheFolder };
  const stdio = { stdin: "ignore", stdout: "pipe", stderr: "pipe" } as const;
  return await ended(Bun.spawn(command, { cwd: folder, env, ...stdio }));
}

describe("basedxl models", () => {
  test("lists what each file is, and broken ones with the reason", async () => {
    const { stdout, stderr, exitCode } = await models("--models-dir", "ui", "--json");
    expect({ stderr, exitCode }).toEqual({ stderr: "", exitCode: 0 });
    const { models: found, folders, warnings } = JSON.parse(stdout);
    expect(folders).toEqual([join(folder, "ui")]);
    expect(warnings).toEqual([
      expect.stringMatching(/names the folder .*gone, which is not there/),
    ]);
    const hash = createHash("sha256").update(lora).digest("hex");
    const path = join(folder, "ui/models/loras/style/ink.safetensors");
    const bytes = lora.length;
    expect(found.find(({ name }: ModelRow) => name === "style/ink")).toEqual({
      ...{ name: "style/ink", kind: "lora", detail: "SDXL", bytes, hash: hash.slice(0, 10) },
      ...{ sha256: hash, path, problem: null },
    });
    const short = found.map(({ name, kind, detail, problem }: ModelRow) =>
      [name, kind, problem ?? detail].join(" | "),
    );
    expect(short.sort()).toEqual([
      expect.stringMatching(
        /^cut_lightning \| unreadable \| is cut off: 3 of \d+ bytes are missing/,
      ),
      expect.stringMatching(/^lost \| unreadable \| is a link to nowhere, which does not exist/),
      expect.stringMatching(
        /^marked \| .*v-prediction, zero-terminal SNR, few steps \(SDXL Turbo\)$/,
      ),
      "mini | checkpoint | SDXL base",
      expect.stringMatching(/^page \| unreadable \| is a web page/),
      expect.stringMatching(/^red\p{Cc}\[31m \| unreadable \| holds pickled weights/u),
      "sdxl_lightning_4step_lora | lora | SDXL, few steps (SDXL-Lightning)",
      "style/ink | lora | SDXL",
      "worst | embedding | SDXL",
    ]);
    expect(readdirSync(cacheFolder)).toEqual(["hashes.json"]);
  });

  test("as a table, of one kind, names alone", async () => {
    const table = await models("--models-dir=ui", "--no-hash");
    expect(table.exitCode).toBe(0);
    expect(table.stdout).toMatch(
      /^Models \(1\)\n {2}mini {2}SDXL base {2}\d+\.\d MB {2}\/.*more\n\n/,
    );
    expect(table.stdout).toMatch(
      /\nLoRAs \(2\)\n.*\n {2}style\/ink {2,}SDXL {2,}\d+ B {2}\/.*style\n/,
    );
    expect(table.stdout).toContain("red\\u001b[31m  holds pickled");
    expect(table.stderr).toMatch(/^warning: .*extra_model_paths\.yaml names the folder/);

    const both = await models("--models-dir", "ui", "--models-dir", "more", "--names");
    expect(both.stdout.split("\n")).toContain("mini");

    const one = await models("--models-dir", "ui", "--kind", "embedding", "--no-hash");
    expect(one.stdout).toMatch(/^Embeddings \(1\)\n {2}worst .*\n$/);
    expect((await models("--models-dir", "ui", "--names", "--kind", "lora")).stdout).toBe(
      "cut_lightning\npage\nsdxl_lightning_4step_lora\nstyle/ink\n",
    );
  });

  test.skipIf(process.platform !== "linux")(
    "Ctrl-C while it hashes ends it, and what is hashed is kept",
    async () => {
      const head = safetensorsBytes({ clip_l: [1, 768], clip_g: [1, 1280] });
      put("slow/embeddings/a.safetensors", head);
      const big = join(folder, "slow/embeddings/b.safetensors");
      // 64 GiB of holes, which take no room on the disk.
      const shapes = { clip_l: [2 ** 24, 768], clip_g: [2 ** 24, 1280] };
      writeSparseFile(big, new Map(Object.entries(shapes)));
      const command = [
        process.execPath,
        join(root, "src/main.ts"),
        "models",
        "--models-dir",
        "slow",
      ];
      const own = join(folder, "slow-cache");
      const env = { ...process.env, HF_HOME: join(folder, "hf"), BASEDXL_CACHE_DIR: own };
      const stdio = { stdin: "ignore", stdout: "pipe", stderr: "pipe" } as const;
      const child = Bun.spawn(command, { cwd: folder, env, ...stdio });
      const whole = ended(child);
      const cache = join(own, "hashes.json");
      // Its header is read in a moment, hashing takes minutes.
      for (let times = 0; times < 5; times = isOpenIn(child.pid, big) ? times + 1 : 0) {
        await Bun.sleep(10);
      }
      child.kill("SIGINT");
      const { stdout, stderr, exitCode } = await whole;
      expect({ stdout, exitCode }).toEqual({ stdout: "", exitCode: 130 });
      expect(stderr).toBe("Stopping ...\n");
      expect(Object.keys(JSON.parse(readFileSync(cache, "utf8")).files)).toEqual([
        join(folder, "slow/embeddings/a.safetensors"),
      ]);
    },
  );

  test("without folders, or with a wrong flag, says what to do", async () => {
    const { stdout, exitCode } = await models();
    expect({ stdout, exitCode }).toEqual({
      stdout:
        "No folder of models is named: --models-dir or the variable BASEDXL_MODELS_DIR names " +
        "one.\n",
      exitCode: 0,
    });
    const wrong = await models("--kind", "lroa");
    expect(wrong.exitCode).toBe(2);
    expect(wrong.stderr).toMatch(/--kind must be one of .*, not "lroa"\. Did you mean lora\?/);
    const nowhere = await models("--models-dir", "ui", "--models-dir", "nowhere");
    expect({ stdout: nowhere.stdout, exitCode: nowhere.exitCode }).toEqual({
      stdout: "",
      exitCode: 2,
    });
    expect(nowhere.stderr).toMatch(/--models-dir .*nowhere does not exist; name a folder/);
  });
});

/** Whether the process is reading the file at `path`. */
function isOpenIn(pid: number, path: string): boolean {
  const folderOfFiles = `/proc/${pid}/fd`;
  return readdirSync(folderOfFiles).some((name) => {
    try {
      return readlinkSync(join(folderOfFiles, name)) === path;
    } catch {
      return false;
    }
  });
}

describe("the table", () => {
  const row = (name: string, more: Partial<ModelRow> = {}): ModelRow => ({
    ...{ name, kind: "lora", detail: "SDXL", path: `/a/folder/${name}.safetensors` },
    ...{ isFolder: false, bytes: 6_938_000_000, problem: null, sha256: "0123456789ab" },
    ...more,
  });
  const rows = [row("a"), row("名前".repeat(9)), row("b".repeat(60), { detail: "c".repeat(40) })];

  for (const columns of [10, 20, 40, 60, 80, 120, 200]) {
    test(`is at most ${columns} columns wide`, () => {
      const lines = renderModels(rows, [], columns).trimEnd().split("\n");
      expect(lines).toHaveLength(4);
      const widths = lines.slice(1).map((line) => Bun.stringWidth(line));
      expect(Math.max(...widths)).toBeLessThanOrEqual(columns);
      expect(lines[1]).toMatch(/^ {2}a/);
    });
  }

  test("cuts nothing where it is not shown on a terminal", () => {
    const text = renderModels(rows, [], null);
    for (const { name, detail } of rows) expect(text).toMatch(new RegExp(`${name} .*${detail} `));
    expect(text).toMatch(/ {2}6\.94 GB {2}0123456789 {2}\/a\/folder\n/);
  });
});

describe("the cache of hashes", () => {
  const place = (name: string) => {
    mkdirSync(join(folder, name));
    return join(folder, name);
  };
  const hashOf = (text: string) => createHash("sha256").update(text).digest("hex");

  test("keeps a hash until the file changes", async () => {
    const where = place("kept");
    const file = put("kept/file", "one");
    const cache = new HashCache(where);
    expect(await cache.hashOf(file)).toBe(hashOf("one"));
    expect(cache.known(file)).toBe(hashOf("one"));
    cache.save();
    expect(new HashCache(where).known(file)).toBe(hashOf("one"));
    // The same size at another time.
    writeFileSync(file, "two");
    utimesSync(file, 1, 1.000001);
    expect(new HashCache(where).known(file)).toBeNull();
    expect(await new HashCache(where).hashOf(file)).toBe(hashOf("two"));
    expect(cache.known(join(where, "none"))).toBeNull();
    expect(readdirSync(where).sort()).toEqual(["file", "hashes.json"]);
  });

  test("pieces: hashes of files around their size, while the program goes on", async () => {
    const cache = new HashCache(null);
    const [piece, thread] = [2 ** 18, 2 ** 24];
    const sizes = [0, 1, piece - 1, piece, piece + 1, 3 * piece, thread, thread + 1];
    for (const bytes of sizes) {
      const content = Buffer.alloc(bytes, "abc");
      const file = put(`pieces/${bytes}`, content);
      const seen: number[] = [];
      const sha256 = await cache.hashOf(file, { onProgress: (read) => seen.push(read) });
      expect(sha256).toBe(createHash("sha256").update(content).digest("hex"));
      expect(seen.at(-1) ?? 0).toBe(bytes);
    }
    const controller = new AbortController();
    controller.abort();
    const { signal } = controller;
    const big = put("pieces/big", Buffer.alloc(10));
    expect(cache.hashOf(big, { signal })).rejects.toThrow("Stopped");
  });

  test("large files: a thread hashes them, from any byte, and can be stopped", async () => {
    const cache = new HashCache(null);
    const content = Buffer.alloc(2 ** 26 + 5, "abcd");
    const file = put("thread", content);
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    const sha256 = await cache.hashOf(file, { start: 4 });
    clearInterval(timer);
    expect(sha256).toBe(createHash("sha256").update(content.subarray(4)).digest("hex"));
    expect(turns).toBeGreaterThan(3);
    const controller = new AbortController();
    const { signal } = controller;
    const onProgress = () => controller.abort();
    const stopped = cache.hashOf(file, { signal, onProgress });
    expect(await stopped.catch((error: Error) => error.message)).toContain("Stopped");
    rmSync(file);
    expect(cache.hashOf(file)).rejects.toThrow("ENOENT");
  });

  test("two runs at once lose nothing, and leave nothing behind", async () => {
    const where = place("two");
    const [first, second] = [new HashCache(where), new HashCache(where)];
    await first.hashOf(put("two/a", "a"));
    await second.hashOf(put("two/b", "b"));
    first.save();
    second.save();
    const third = new HashCache(where);
    expect([third.known(join(where, "a")), third.known(join(where, "b"))]).toEqual([
      hashOf("a"),
      hashOf("b"),
    ]);
    expect(readdirSync(where).sort()).toEqual(["a", "b", "hashes.json"]);
    expect(statSync(join(where, "hashes.json")).mode & 0o777).toBe(0o600);
  });

  for (const [what, text] of [
    ["no JSON", "{"],
    ["another version", '{"version":2,"files":{}}'],
    ["a wrong hash", '{"version":1,"files":{"/x":["1","2","3"]}}'],
    ["a list", "[]"],
    ["nothing", ""],
  ] as const) {
    test(`with ${what} in it is none, and is replaced`, async () => {
      const where = place(`damaged ${what}`);
      writeFileSync(join(where, "hashes.json"), text);
      const cache = new HashCache(where);
      const file = put(`damaged ${what}/file`, "x");
      expect(await cache.hashOf(file)).toBe(hashOf("x"));
      cache.save();
      expect(JSON.parse(readFileSync(join(where, "hashes.json"), "utf8")).version).toBe(1);
    });
  }

  test("in a folder that is gone is no error", async () => {
    const cache = new HashCache(join(folder, "gone"));
    expect(await cache.hashOf(put("x", "x"))).toBe(hashOf("x"));
    cache.save();
  });
});

test("the status line is one line of the terminal, and is gone in the end", () => {
  let written = "";
  let nowMs = 0;
  const write = (text: string) => {
    written += text;
    return true;
  };
  const status = createStatusLine({ isTTY: true, columns: 12, write } as never, () => nowMs);
  status.show("Hashing a\x1b[31m name");
  status.show("too soon");
  nowMs = 200;
  status.show("next");
  status.clear();
  expect(written).toBe("\r\x1b[KHashing a\\u\r\x1b[Knext\r\x1b[K");
  const piped = createStatusLine({ isTTY: false, columns: 80, write } as never);
  written = "";
  piped.show("x");
  piped.clear();
  expect(written).toBe("");
});
