/**
 * Licences of everything that a binary bundles: BasedXL, the packages of package.json with their
 * dependencies, Bun with the libraries linked into it, Zig's standard library, and the libraries in
 * libvips. Notices that no package includes are in src/assets/licenses.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { License } from "../binary/contents.ts";
import { compilerOfPackages } from "./compiler.ts";

/** All licences of the clone at `root`, in the order in which they are printed. */
export function collectLicenses(root: string): License[] {
  return [
    ownLicense(root),
    ...bunLicenses(root),
    zigLicense(root),
    ...packageLicenses(root),
    ...vipsLicenses(root),
    vocabularyLicense(root),
    ...commonTexts(root),
  ];
}

// --- internal ---

interface Manifest {
  name: string;
  version: string;
  license?: string | { type: string };
  homepage?: string;
  repository?: string | { url: string };
  dependencies?: Record<string, string>;
  optionalDependencies?: Record<string, string>;
}

/** An entry of bun.json or libvips.json. */
interface Listed {
  name: string;
  license: string;
  source: string;
  /** Names of the common license texts that apply to it. */
  texts: string[];
  /** Name of the notice; the entry's own where there is none. */
  notice?: string;
  /** Its key in the versions.json of libvips' package. */
  versionKey?: string | null;
}

function ownLicense(root: string): License {
  const { name, version } = manifestOf(root);
  const text = readFileSync(join(root, "LICENSE"), "utf8");
  const source = "the folder of the program";
  return { name, version, license: "MIT", source, text };
}

function bunLicenses(root: string): License[] {
  const bun: License = {
    name: "bun",
    version: Bun.version,
    license: "MIT AND LGPL-2.0-or-later",
    source: "https://github.com/oven-sh/bun",
    text: withTexts(noticeOf(root, "bun"), ["LGPL-2"]),
  };
  return [bun, ...listed(root, "bun.json", "in Bun", () => "")];
}

function zigLicense(root: string): License {
  const version = compilerOfPackages(root)?.version ?? "";
  const source = "https://codeberg.org/ziglang/zig";
  return { name: "zig (library)", version, license: "MIT", source, text: noticeOf(root, "zig") };
}

/** CLIP's merges, in src/assets/clip. */
function vocabularyLicense(root: string): License {
  const source = "https://github.com/mlfoundations/open_clip";
  const text = noticeOf(root, "open_clip");
  return { name: "open_clip (vocabulary)", version: "3.3.0", license: "MIT", source, text };
}

/** The packages of `dependencies` and everything below them, by name. */
function packageLicenses(root: string): License[] {
  const names = new Set<string>();
  const waiting = Object.keys(manifestOf(root).dependencies ?? {});
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    const folder = join(root, "node_modules", name);
    // Optional packages are those of other platforms.
    if (names.has(name) || !existsSync(join(folder, "package.json"))) continue;
    if (name.startsWith("@types/")) continue;
    names.add(name);
    const { dependencies, optionalDependencies } = manifestOf(folder);
    waiting.push(...Object.keys({ ...dependencies, ...optionalDependencies }));
  }
  return [...names].sort().map((name) => packageLicense(join(root, "node_modules", name)));
}

function packageLicense(folder: string): License {
  const { name, version, license, homepage, repository } = manifestOf(folder);
  const file = readdirSync(folder).find((each) => /^(licen[cs]e|copying)/i.test(each));
  const readme = readdirSync(folder).find((each) => /^readme/i.test(each));
  const url = typeof repository === "string" ? repository : repository?.url;
  const text = file ?? readme;
  return {
    name,
    version,
    license: (typeof license === "string" ? license : license?.type) ?? "see the text",
    source: sourceOf(url ?? homepage ?? ""),
    text: text === undefined ? "" : readFileSync(join(folder, text), "utf8"),
  };
}

/** Manifests may say `git+https://...git` or, for GitHub, `owner/name`. */
function sourceOf(text: string): string {
  const url = text.replace(/^git\+|\.git$/g, "").replace(/^git:/, "https:");
  return /^[\w.-]+\/[\w.-]+$/.test(url) ? `https://github.com/${url}` : url;
}

function vipsLicenses(root: string): License[] {
  const platform = `${process.platform}-${process.arch}`;
  const path = join(root, "node_modules", "@img", `sharp-libvips-${platform}`, "versions.json");
  if (!existsSync(path)) return [];
  const versions = JSON.parse(readFileSync(path, "utf8")) as Record<string, string>;
  return listed(root, "libvips.json", "in libvips", (key) => versions[key] ?? "");
}

function listed(
  root: string,
  file: string,
  where: string,
  versionOf: (key: string) => string,
): License[] {
  const entries = JSON.parse(readFileSync(join(assets(root), file), "utf8")) as Listed[];
  return entries.map(({ name, license, source, texts, notice, versionKey }) => ({
    name: `${name} (${where})`,
    version: versionKey ? versionOf(versionKey) : "",
    license,
    source,
    text: withTexts(noticeOf(root, notice ?? name), texts),
  }));
}

/** License texts that several entries share, once each. */
function commonTexts(root: string): License[] {
  const folder = join(assets(root), "texts");
  const names = readdirSync(folder).map((file) => file.replace(/\.txt$/, ""));
  return names.sort().map((name) => ({
    name,
    version: "",
    license: "text",
    source: "",
    text: readFileSync(join(folder, `${name}.txt`), "utf8"),
  }));
}

function withTexts(notice: string, texts: readonly string[]): string {
  if (texts.length === 0) return notice;
  const commands = texts.map((name) => `basedxl licenses ${name}`).join(", ");
  return `${notice}\nThe whole text: ${commands}\n`;
}

function noticeOf(root: string, name: string): string {
  return readFileSync(join(assets(root), "notices", `${name}.txt`), "utf8");
}

function assets(root: string): string {
  return join(root, "src", "assets", "licenses");
}

function manifestOf(folder: string): Manifest {
  return JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as Manifest;
}
