/**
 * The extraction of a binary, without a binary: unsafe folders, damaged files, and many processes
 * at once.
 */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { cacheCandidates, describeCache, openCache, openFolder } from "../../src/binary/cache.ts";
import type { EmbeddedFile } from "../../src/binary/contents.ts";
import { extract, versionName } from "../../src/binary/extract.ts";
import { refusal as refused } from "../support/refusal.ts";

// Each starts processes, which take long on a machine that builds something else.
setDefaultTimeout(120_000);

let root = "";
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "basedxl-cache-"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function refusal(run: () => unknown): Promise<string> {
  return refused(run, "setup");
}

/** A file as the build would list it. */
function embedded(name: string, text: string): EmbeddedFile {
  const source = join(root, `source-${name.replaceAll("/", "-")}`);
  writeFileSync(source, text);
  const sha256 = new Bun.CryptoHasher("sha256").update(text).digest("hex");
  return { group: "model", name, bytes: text.length, sha256, source };
}

describe("candidates", () => {
  const usual = process.platform === "darwin" ? "Library/Caches" : ".cache";
  const temporary = join(tmpdir(), `basedxl-${process.getuid?.()}`);

  test("the variable alone, else the user's cache, else a temporary folder", () => {
    expect(cacheCandidates({ BASEDXL_CACHE_DIR: "here", XDG_CACHE_HOME: "/x" }, "/h")).toEqual([
      "here",
    ]);
    expect(cacheCandidates({ BASEDXL_CACHE_DIR: "~/c" }, "/h")).toEqual([join(homedir(), "c")]);
    const home = join("/h", usual, "basedxl");
    expect(cacheCandidates({ XDG_CACHE_HOME: "/x" }, "/h")).toEqual([
      "/x/basedxl",
      home,
      temporary,
    ]);
    expect(cacheCandidates({ XDG_CACHE_HOME: "relative" }, "/h")).toEqual([home, temporary]);
    expect(cacheCandidates({}, "")).toEqual([temporary]);
    // The home folder of users that are none.
    expect(cacheCandidates({}, "/")).toEqual([temporary]);
  });
});

describe("choosing a folder", () => {
  test("makes it, for this user alone, and takes rights away from others", () => {
    const folder = openCache([join(root, "a", "cache")], "1");
    expect(folder).toBe(join(root, "a", "cache", "1"));
    expect(lstatSync(folder).mode & 0o777).toBe(0o700);
    chmodSync(folder, 0o777);
    openCache([join(root, "a", "cache")], "1");
    expect(lstatSync(folder).mode & 0o777).toBe(0o700);
    expect(readdirSync(folder)).toEqual([]);
  });

  test("goes on to the next where one cannot be used", () => {
    writeFileSync(join(root, "file"), "");
    const second = join(root, "second");
    expect(openCache([join(root, "file"), second], "1")).toBe(join(second, "1"));
  });

  test("refuses a link: its owner could change the target", async () => {
    mkdirSync(join(root, "elsewhere"));
    symlinkSync(join(root, "elsewhere"), join(root, "link"));
    expect(await refusal(() => openCache([join(root, "link")], "1"))).toBe(
      `No folder can hold the files that the program loads: ${join(root, "link")} (it is a \
link or a file, not a folder). Set BASEDXL_CACHE_DIR to a folder of yours that is writable and \
not mounted noexec.`,
    );
  });

  test.skipIf(process.getuid?.() !== 0)("refuses a folder of another user", async () => {
    const folder = join(root, "theirs");
    mkdirSync(folder);
    Bun.spawnSync(["chown", "12345", folder]);
    expect(await refusal(() => openCache([folder], "1"))).toContain("it belongs to another user");
  });

  test("refuses a folder below one that others may write to, unless it is sticky", async () => {
    const shared = join(root, "shared");
    mkdirSync(join(shared, "mine"), { recursive: true });
    for (const mode of [0o777, 0o757]) {
      chmodSync(shared, mode);
      for (const folder of [join(shared, "cache"), join(shared, "mine", "cache")]) {
        const sentence = await refusal(() => openCache([folder], "1"));
        expect(sentence).toContain(`other users may write to ${shared} above it`);
      }
    }
    // A link elsewhere does not hide it.
    symlinkSync(join(shared, "mine"), join(root, "link"));
    const sentence = await refusal(() => openCache([join(root, "link", "cache")], "1"));
    expect(sentence).toContain(`other users may write to ${shared} above it`);
    chmodSync(shared, 0o1777);
    expect(openCache([join(shared, "cache")], "1")).toBe(join(shared, "cache", "1"));
  });

  test.skipIf(process.getuid?.() !== 0)("refuses one below a folder of another user", async () => {
    const theirs = join(root, "theirs");
    mkdirSync(join(theirs, "mine"), { recursive: true });
    Bun.spawnSync(["chown", "12345", theirs]);
    const sentence = await refusal(() => openCache([join(theirs, "mine", "cache")], "1"));
    expect(sentence).toContain(`${theirs} above it belongs to another user`);
  });

  test.skipIf(process.getuid?.() === 0)("reports folders that are not writable", async () => {
    mkdirSync(join(root, "locked"), { mode: 0o500 });
    const sentence = await refusal(() => openCache([join(root, "locked", "cache")], "1"));
    expect(sentence).toContain("no permission to write there");
  });

  test("names every candidate and its reason", async () => {
    writeFileSync(join(root, "file"), "");
    const candidates = [join(root, "file"), join(root, "file", "below")];
    const sentence = await refusal(() => openCache(candidates, "1"));
    for (const candidate of candidates) expect(sentence).toContain(`${candidate} (`);
    const report = describeCache(candidates, "1");
    expect(report).toMatchObject({ path: null, bytes: 0, others: [] });
    expect(report.problem).toContain("No folder can hold");
  });

  test("reports its contents and other versions", () => {
    const cache = join(root, "cache");
    extract(openCache([cache], "1"), [embedded("a", "12345")]);
    openCache([cache], "0");
    // Hashes of models are no version.
    writeFileSync(join(cache, "hashes.json"), "{}");
    const report = describeCache([cache], "1");
    expect(report).toEqual({
      path: join(cache, "1"),
      problem: null,
      bytes: 5,
      others: [join(cache, "0")],
    });
  });

  test("for files that are no code is the first folder that nobody else can write to", () => {
    writeFileSync(join(root, "file"), "");
    const [bad, good] = [join(root, "file", "x"), join(root, "good")];
    expect(openFolder([bad, good])).toBe(good);
    expect(openFolder([bad])).toBeNull();
  });
});

describe("extracting", () => {
  test("writes what is missing or changed, and nothing else", () => {
    const files = [embedded("a.so", "first"), embedded("model/b", "second")];
    const folder = openCache([join(root, "cache")], "1");
    extract(folder, files);
    const untouched = lstatSync(join(folder, "a.so")).ino;
    writeFileSync(join(folder, "model", "b"), "SECOND");
    extract(folder, files);
    expect(readFileSync(join(folder, "model", "b"), "utf8")).toBe("second");
    expect(lstatSync(join(folder, "a.so")).ino).toBe(untouched);
    expect(lstatSync(join(folder, "a.so")).mode & 0o777).toBe(0o700);
  });

  test("a damaged program file is named, and nothing is written", async () => {
    const file = embedded("a.so", "first");
    writeFileSync(file.source, "FIRST");
    const folder = openCache([join(root, "cache")], "1");
    expect(await refusal(() => extract(folder, [file]))).toBe(
      "The program file is damaged (at a.so): get it again.",
    );
    expect(readdirSync(folder)).toEqual([]);
  });

  const damages: [string, (path: string, folder: string) => void][] = [
    ["a folder in its place", (path) => mkdirSync(join(path, "in the way"), { recursive: true })],
    ["a link to a file of another", (path) => symlinkSync(join(root, "theirs"), path)],
    ["a dangling link", (path) => symlinkSync(join(root, "nothing"), path)],
    ["a pipe", (path) => void Bun.spawnSync(["mkfifo", path])],
    ["an empty file", (path) => writeFileSync(path, "")],
    ["a longer file", (path) => writeFileSync(path, "first and more")],
    ["a file that may not be read", (path) => writeFileSync(path, "FIRST", { mode: 0 })],
    [
      "a link in place of the folder above it",
      (_, folder) => {
        mkdirSync(join(root, "other"));
        writeFileSync(join(root, "other", "a.so"), "first");
        symlinkSync(join(root, "other"), join(folder, "lib"));
      },
    ],
    [
      "a file in place of the folder above it",
      (_, folder) => writeFileSync(join(folder, "lib"), ""),
    ],
  ];
  test.each(damages)("%s is replaced", (_name, damage) => {
    const folder = openCache([join(root, "cache")], "1");
    const path = join(folder, "lib", "a.so");
    writeFileSync(join(root, "theirs"), "first");
    if (damage.length < 2) mkdirSync(join(folder, "lib"), { recursive: true });
    damage(path, folder);
    extract(folder, [embedded("lib/a.so", "first")]);
    expect(lstatSync(join(folder, "lib")).isDirectory()).toBe(true);
    expect(lstatSync(path).isFile()).toBe(true);
    expect(lstatSync(path).mode & 0o777).toBe(0o700);
    expect(readFileSync(path, "utf8")).toBe("first");
    expect(readFileSync(join(root, "theirs"), "utf8")).toBe("first");
  });

  test("eight processes at once: each sees whole files only", async () => {
    const files = [embedded("a", "x".repeat(3e6)), embedded("b/c", "y".repeat(2e6))];
    const folder = openCache([join(root, "cache")], "1");
    const extracting = join(import.meta.dir, "../../src/binary/extract.ts");
    const script = `import { extract } from ${JSON.stringify(extracting)};
      import { readFileSync } from "node:fs";
      const files = ${JSON.stringify(files)};
      extract(${JSON.stringify(folder)}, files);
      for (const { name, bytes } of files) {
        if (readFileSync(${JSON.stringify(folder)} + "/" + name).length !== bytes) throw name;
      }`;
    const children = Array.from({ length: 8 }, () =>
      Bun.spawn([process.execPath, "-e", script], { stdout: "ignore", stderr: "pipe" }),
    );
    for (const child of children) {
      const [stderr, exitCode] = [await new Response(child.stderr).text(), await child.exited];
      expect({ stderr, exitCode }).toEqual({ stderr: "", exitCode: 0 });
    }
    expect(readdirSync(folder, { recursive: true }).sort()).toEqual(["a", "b", "b/c"]);
  });

  test("the folder's name changes with a file's content and with the version", () => {
    const versions = { basedxl: "1.2.3", bun: "", zig: "", cudaKernels: "" };
    const name = versionName({ versions, files: [embedded("a", "one")] });
    expect(name).toMatch(/^1\.2\.3-[0-9a-f]{16}$/);
    expect(versionName({ versions, files: [embedded("a", "two")] })).not.toBe(name);
    expect(versionName({ versions, files: [embedded("b", "one")] })).not.toBe(name);
  });
});
