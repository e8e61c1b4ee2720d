/**
 * `bun run build`: dist/basedxl, one file with Bun, the program, the native library with its
 * kernels, sharp with libvips, and the bundled model.
 *
 * Files that must lie on a disk (libraries to load, weights to map) are embedded as they are and
 * extracted by src/binary/: Bun's own extraction of a library leaves it in the temporary folder,
 * where sharp's addon would not find libvips. Modules are replaced on the way:
 * - src/resources.ts and src/setup/entry.ts by their versions in src/binary/;
 * - the values of src/binary/contents.ts by the list of files;
 * - the value of src/serve/page/bundled.ts by the files of the server's page;
 * - sharp's addon, `@img/sharp-PLATFORM/sharp.node`, by a `require` of the extracted one. It lies
 *   beside libvips as in node_modules, so that the search path in it (RPATH) holds.
 */
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { basename, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import packageJson from "../../package.json" with { type: "json" };
import type { Contents, EmbeddedFile, Group } from "../binary/contents.ts";
import { BasedXLError } from "../errors.ts";
import { repositoryRoot } from "../setup.ts";
import { compilerOfPackages } from "./compiler.ts";
import { collectLicenses } from "./licenses.ts";
import { libraryPathOf } from "./native.ts";
import { libraryName } from "./platform.ts";

/**
 * Builds the binary at `outPath` and resolves to its size in bytes. `page` has the files of the
 * server's page. Throws "setup".
 */
export async function buildBinary(outPath: string, page: unknown): Promise<number> {
  const root = repositoryRoot;
  // Build in a temporary folder: a failed build keeps the old binary. The file already has its
  // final name, because Bun writes the name into it.
  const folder = mkdtempSync(join(madeFolder(join(outPath, "..")), ".basedxl-build-"));
  const newPath = join(folder, basename(outPath));
  try {
    await compile(root, newPath, page);
    renameSync(newPath, outPath);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return statSync(outPath).size;
}

// --- internal ---

const platform = `${process.platform}-${process.arch}`;

function madeFolder(folder: string): string {
  mkdirSync(folder, { recursive: true });
  return folder;
}

async function compile(root: string, outfile: string, page: unknown): Promise<void> {
  const { files, versions, licenses } = await contentsOf(root);
  const result = await Bun.build({
    // A thread has code of its own, which src/binary/resources.ts names.
    entrypoints: ["main.ts", "library/sha256-worker.ts"].map((name) => join(root, "src", name)),
    root: join(root, "src"),
    compile: {
      outfile,
      // No file of the user's current folder may change what the program does.
      autoloadDotenv: false,
      autoloadBunfig: false,
    },
    minify: { syntax: true, whitespace: true },
    // A start parses the code of its command alone: --version takes a quarter of the time.
    splitting: true,
    plugins: [replacements({ files, versions, licenses }, page)],
    throw: false,
  });
  if (result.success) return;
  throw new BasedXLError("setup", `The binary did not build:\n${result.logs.join("\n")}`);
}

async function contentsOf(root: string): Promise<Contents> {
  const library = libraryPathOf(root);
  const { probeDevice } = await import("../native/device-info.ts");
  return {
    files: [
      embedded("library", libraryName(process.platform), library),
      ...sharpFiles(join(root, "node_modules", "@img")),
      ...folderFiles("model", "mini-sdxl", join(root, "src", "assets", "mini-sdxl")),
      ...folderFiles("controlnet", "mini-outlines", join(root, "src", "assets", "mini-outlines")),
      ...folderFiles("clip", "clip", join(root, "src", "assets", "clip")),
    ],
    versions: {
      basedxl: packageJson.version,
      bun: Bun.version,
      zig: compilerOfPackages(root)?.version ?? "unknown",
      cudaKernels: probeDevice().cudaKernels,
    },
    licenses: collectLicenses(root),
  };
}

/** The addon and libvips, with the same relative paths as in node_modules/@img. */
function sharpFiles(packages: string): EmbeddedFile[] {
  const addon = `sharp-${platform}/lib`;
  const libvips = `sharp-libvips-${platform}/lib`;
  const pick = (folder: string, pattern: RegExp) => {
    const names = readdirSync(join(packages, folder)).filter((name) => pattern.test(name));
    if (names.length === 1) return `${folder}/${names[0]}`;
    throw new BasedXLError(
      "setup",
      `node_modules/@img/${folder} has ${names.length} files that match ${pattern}, expected one: \
src/setup/binary.ts was written for another release of sharp.`,
    );
  };
  return [pick(addon, /\.node$/), pick(libvips, /^libvips-cpp\..*(so|dylib)/)].map((name) =>
    embedded("images", name, join(packages, name)),
  );
}

function folderFiles(group: Group, name: string, folder: string): EmbeddedFile[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
    .map((path) => embedded(group, name + path.slice(folder.length), path));
}

function embedded(group: Group, name: string, path: string): EmbeddedFile {
  const contents = readFileSync(path);
  const sha256 = new Bun.CryptoHasher("sha256").update(contents).digest("hex");
  return { group, name, bytes: contents.length, sha256, source: path };
}

function replacements(contents: Contents, page: unknown): Bun.BunPlugin {
  const extracting = fileURLToPath(new URL("../binary/resources.ts", import.meta.url));
  const starting = fileURLToPath(new URL("../binary/entry.ts", import.meta.url));
  return {
    name: "basedxl",
    setup(build) {
      const replaced = new Map([
        [join(repositoryRoot, "src", "resources.ts"), extracting],
        [join(repositoryRoot, "src", "setup", "entry.ts"), starting],
      ]);
      build.onResolve({ filter: /\/(resources|entry)\.ts$/ }, ({ path, importer }) => {
        const asked = resolve(importer, "..", path);
        return { path: replaced.get(asked) ?? asked };
      });
      build.onLoad({ filter: /[/\\]binary[/\\]contents\.ts$/ }, () => ({
        contents: contentsModule(contents),
        loader: "js",
      }));
      build.onLoad({ filter: /[/\\]serve[/\\]page[/\\]bundled\.ts$/ }, () => ({
        contents: `export const bundledFiles = ${JSON.stringify(page)};`,
        loader: "js",
      }));
      // The ES version of sharp creates its own `require`, which the bundler cannot follow.
      build.onResolve({ filter: /^sharp$/ }, () => ({
        path: join(repositoryRoot, "node_modules", "sharp", "dist", "index.cjs"),
      }));
      build.onResolve({ filter: new RegExp(`^@img/sharp-${platform}/sharp\\.node$`) }, () => ({
        path: "sharp.node",
        namespace: "extracted",
      }));
      build.onLoad({ filter: /.*/, namespace: "extracted" }, () => ({
        contents: `const { sharpAddon } = require(${JSON.stringify(extracting)});
          const path = sharpAddon();
          module.exports = require(path);`,
        loader: "js",
      }));
    },
  };
}

/** Each file becomes an import that Bun embeds; `source` is its path in the binary. */
function contentsModule({ files, versions, licenses }: Contents): string {
  const imports = files.map(
    ({ source }, index) =>
      `import file${index} from ${JSON.stringify(source)} with {type: "file"};`,
  );
  const list = files.map(({ source: _, ...file }, index) => {
    return `{ ...${JSON.stringify(file)}, source: file${index} }`;
  });
  return `${imports.join("\n")}
    export const contents = {
      versions: ${JSON.stringify(versions)},
      files: [${list.join(", ")}],
      licenses: ${JSON.stringify(licenses)},
    };`;
}
