/**
 * Which file may import which: the folders are layers, from what a user starts down to what
 * everything stands on, and an import points down or stays in its layer. So the lists below are the
 * architecture, read from the top.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  packageImports,
  readSources,
  root,
  type Source,
  sourceOf,
  typescriptImports,
  zigImports,
} from "./support/sources.ts";

/**
 * Each line a layer: files and folders of src/, without ending. The longest name that a file begins
 * with counts, so a file can lie in another layer than its folder.
 */
const typescriptLayers = [
  ["main", "bench/main", "setup/build", "setup/build-binary", "setup/check", "setup/preload"],
  ["setup/kit"],
  ["cli"],
  ["commands"],
  ["bench"],
  ["doctor"],
  ["settings/sample-prompts"],
  ["sheets"],
  ["settings/options"],
  ["serve"],
  ["index"],
  ["distributed", "metadata"],
  ["terminal/progress", "terminal/output", "terminal/download-lines"],
  ["pipeline"],
  ["devices"],
  ["embeddings"],
  ["adapters", "library/list", "networks"],
  ["models", "library"],
  ["prompt"],
  ["schedule"],
  ["models/config", "models/files", "models/json"],
  ["hub"],
  ["setup/binary"],
  ["native"],
  ["image"],
  ["settings"],
  ["terminal"],
  ["native/abi"],
  ["resources", "binary"],
  ["setup"],
  ["setup/licenses", "setup/platform", "setup/compiler", "paths"],
  ["binary/contents"],
  ["samplers"],
  ["errors", "limited-read"],
];

/** The same for zig/. */
const zigLayers = [
  ["root", "program", "test_cuda", "fuzz"],
  ["gpu_program", "replay"],
  ["bench"],
  ["abi"],
  ["verify"],
  ["doctor"],
  ["emulator"],
  ["faults"],
  ["session"],
  ["devices"],
  ["pipeline"],
  ["session/job"],
  ["model"],
  ["patch"],
  ["transport"],
  ["backend"],
  ["weights"],
  ["nvidia"],
  ["stage", "tensor", "scratch", "diagnostics", "system", "random", "test_count"],
];

const typescript = readSources(["src/**/*.{ts,tsx}"]);
const zig = readSources(["zig/**/*.zig"]);
const isZigTest = (name: string) => /\/tests\/|_test\.zig$|fixture\.zig$/.test(name);

describe("imports", () => {
  test("of src/ point down", () => {
    expect(upward(typescript, typescriptImports, "src/", typescriptLayers)).toEqual([]);
  });

  test("of zig/ point down, but for tests", () => {
    const product = zig.filter(({ name }) => !isZigTest(name));
    expect(upward(product, zigImports, "zig/", zigLayers)).toEqual([]);
  });

  test("of src/ form no circle, of values or types", () => {
    expect(circles(typescript, typescriptImports)).toEqual([]);
  });

  test("of `sample` reach the pipeline by its public API alone", () => {
    const command = typescript.filter(({ name }) => name.startsWith("src/commands/sample"));
    const below = importsOf(command, typescriptImports).filter(({ to }) =>
      /^src\/(pipeline\/|adapters\/|models\/|prompt\/|schedule|devices|native\/)/.test(to),
    );
    expect(command).toHaveLength(2);
    expect(below.map(shown)).toEqual([]);
  });

  test("of src/ stay in src/, with package.json", () => {
    const outside = importsOf(typescript, typescriptImports).filter(
      ({ to }) => !to.startsWith("src/") && to !== "package.json",
    );
    expect(outside.map(shown)).toEqual([]);
  });

  test("of src/ name only packages that users install", () => {
    const { dependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
    const known = new Set(Object.keys(dependencies));
    const unknown = typescript.flatMap((source) =>
      packageImports(source)
        .filter((name) => !known.has(name))
        .map((name) => `${source.name} -> ${name}`),
    );
    expect(unknown).toEqual([]);
  });
});

describe("how imports are judged", () => {
  const layers = [["top"], ["mid"], ["mid/low", "low"]];
  const files = (texts: Record<string, string>) =>
    Object.entries(texts).map(([name, text]) => sourceOf(`src/${name}.ts`, text));
  const judge = (texts: Record<string, string>) =>
    upward(files(texts), typescriptImports, "src/", layers);

  test("down and sideways are fine; up is named, for types and late imports too", () => {
    expect(judge({ top: 'import "./mid.ts";', "mid/a": 'import { x } from "./b.ts";' })).toEqual(
      [],
    );
    expect(judge({ "mid/low": 'import type { A } from "../mid/a.ts";' })).toEqual([
      "src/mid/low.ts -> src/mid/a.ts",
    ]);
    expect(judge({ low: 'await import("./top.ts");' })).toEqual(["src/low.ts -> src/top.ts"]);
    // A folder's name is no beginning of another's.
    expect(judge({ "mid/lower": 'import "./a.ts";' })).toEqual([]);
  });

  test("a file without a layer is an error", () => {
    expect(() => judge({ other: 'import "./low.ts";' })).toThrow("src/other.ts is in no layer");
  });

  test("circles are found with everybody in them", () => {
    const texts = {
      a: 'from "./b.ts"',
      b: 'from "./c.ts"',
      c: 'from "./a.ts"',
      d: 'from "./a.ts"',
    };
    expect(circles(files(texts), typescriptImports)).toEqual([
      ["src/a.ts", "src/b.ts", "src/c.ts"],
    ]);
    expect(circles(files({ a: 'from "./b.ts"', b: "" }), typescriptImports)).toEqual([]);
  });

  test("packages are named without what is inside them", () => {
    const text =
      'import a from "@scope/name/part";\nimport("vega");\nimport "node:fs";\nfrom "./x"';
    expect(packageImports(sourceOf("src/a.ts", text))).toEqual(["@scope/name", "vega"]);
  });
});

// --- internal ---

interface Import {
  from: string;
  to: string;
}

function shown({ from, to }: Import): string {
  return `${from} -> ${to}`;
}

function importsOf(sources: Source[], imports: (source: Source) => string[]): Import[] {
  return sources.flatMap((source) => imports(source).map((to) => ({ from: source.name, to })));
}

/** Imports of a layer above the file's own. */
function upward(
  sources: Source[],
  imports: (source: Source) => string[],
  folder: string,
  layers: string[][],
): string[] {
  const layerOf = (name: string) => {
    const path = name.slice(folder.length).replace(/\.\w+$/, "");
    const lengths = layers.map((names) => {
      const matching = names.filter((each) => path === each || isInside(path, each));
      return Math.max(0, ...matching.map((each) => each.length));
    });
    const longest = Math.max(...lengths);
    if (longest === 0) throw new Error(`${name} is in no layer`);
    return lengths.indexOf(longest);
  };
  return importsOf(sources, imports)
    .filter(({ from, to }) => to.startsWith(folder) && layerOf(to) < layerOf(from))
    .map(shown)
    .sort();
}

/** Files of a folder, and those that continue a file's name: `config-vae` beside `config`. */
function isInside(path: string, name: string): boolean {
  return path.startsWith(`${name}/`) || path.startsWith(`${name}-`);
}

/** Sets of files that reach each other, by Tarjan's algorithm. */
function circles(sources: Source[], imports: (source: Source) => string[]): string[][] {
  const byName = new Map(sources.map((source) => [source.name, source]));
  const order = new Map<string, number>();
  const lowest = new Map<string, number>();
  const open: string[] = [];
  const found: string[][] = [];
  const visit = (source: Source) => {
    const { name } = source;
    order.set(name, order.size);
    lowest.set(name, order.size - 1);
    open.push(name);
    for (const other of imports(source)) {
      const next = byName.get(other);
      if (!next) continue;
      if (!order.has(other)) visit(next);
      if (open.includes(other)) {
        lowest.set(name, Math.min(lowest.get(name)!, lowest.get(other)!));
      }
    }
    if (lowest.get(name) !== order.get(name)) return;
    const circle = open.splice(open.indexOf(name));
    if (circle.length > 1) found.push(circle.sort());
  };
  for (const source of sources) if (!order.has(source.name)) visit(source);
  return found;
}
