/**
 * The house rules a machine can see, over every source file of the repository. A rule that is in
 * the way is discussed and changed here, for all files; there is no list of exceptions.
 */
import { describe, expect, test } from "bun:test";
import {
  readSources,
  type Source,
  sourceOf,
  typescriptImports,
  zigImports,
} from "./support/sources.ts";

const columnCountMax = 100;
const functionLineCountMax = 70;
/** Longer files are named, not refused: one concept may need them. */
const fileLineCountAdvised = 700;

/** Bindings written by a program: they open with their comment, but keep their own length. */
const generated = new Set(["src/native/abi.ts"]);
const isTypescript = (name: string) => /\.tsx?$/.test(name);
const sources = readSources([
  "{src,tests}/**/*.{ts,tsx}",
  "{zig,cuda}/**/*.{zig,cu,cuh,h}",
  "build.zig",
]);
const typescript = sources.filter(({ name }) => isTypescript(name));
const zig = sources.filter(({ name }) => name.endsWith(".zig"));
const written = sources.filter(({ name }) => !generated.has(name));
const texts = readSources([
  "{src,tests,zig,cuda,.ci}/**/*.{ts,tsx,zig,cu,cuh,h,py,json,toml,md,sh,html,css}",
  "*.{md,json,toml,zig,zon,lock}",
  ".ci/run",
]);

describe("house rules", () => {
  test("there is something to look at", () => {
    expect(typescript.length).toBeGreaterThan(10);
    expect(texts.length).toBeGreaterThan(typescript.length);
  });

  test(`no line is over ${columnCountMax} columns`, () => {
    expect(
      linesWhere(written, (line) => [...line].length > columnCountMax).map(({ place }) => place),
    ).toEqual([]);
  });

  test("long files are named", () => {
    const long = written.filter(({ lines }) => lines.length > fileLineCountAdvised);
    for (const { name, lines } of long) {
      console.log(`${name} has ${lines.length} lines: does it hold more than one concept?`);
    }
  });

  test(`no function is over ${functionLineCountMax} lines`, () => {
    const long = written.flatMap((source) =>
      functionsOf(source)
        .filter(({ lineCount }) => lineCount > functionLineCountMax)
        .map(({ line, lineCount }) => `${source.name}:${line}: ${lineCount} lines`),
    );
    expect(long).toEqual([]);
  });

  test("every file opens with what it does", () => {
    const silent = sources.filter(({ name, text }) => {
      const opening = text.replace(/^#!.*\n/, "");
      if (isTypescript(name)) return !opening.startsWith("/**\n");
      return !opening.startsWith(name.endsWith(".zig") ? "//! " : "//");
    });
    expect(silent.map(({ name }) => name)).toEqual([]);
  });

  test("every TypeScript file is used", () => {
    const started = readSources(["package.json", "bunfig.toml"]).flatMap(({ text }) =>
      [...text.matchAll(/(?:src|tests)\/[\w/.-]+\.ts/g)].map(([path]) => path),
    );
    const tests = typescript.map(({ name }) => name).filter((name) => name.endsWith(".test.ts"));
    const used = reach([...started, ...tests], typescriptImports);
    const unused = typescript.map(({ name }) => name).filter((name) => !used.has(name));
    expect(unused).toEqual([]);
  });

  test("what a file exports, another one uses", () => {
    // The public API is for programs that are not here, the bindings are generated whole.
    const own = typescript.filter(
      ({ name }) => /^src\/(?!index\.ts$|pipeline\.ts$)/.test(name) && !generated.has(name),
    );
    const unused = own.flatMap((source) =>
      exportsOf(source)
        .filter((name) => {
          const pattern = new RegExp(`\\b${name}\\b`);
          return !typescript.some((other) => other !== source && pattern.test(other.text));
        })
        .map((name) => `${source.name}: ${name}`),
    );
    expect(unused).toEqual([]);
    const text = "export async function one() {}\nexport const two = 1;\nconst three = 2;\n";
    expect(exportsOf({ name: "a.ts", text, lines: [] })).toEqual(["one", "two"]);
  });

  test("every Zig file is used", () => {
    const used = reach(["build.zig"], zigImports);
    expect(zig.map(({ name }) => name).filter((name) => !used.has(name))).toEqual([]);
  });

  test("only commands and the set-up print", () => {
    const library = typescript.filter(
      ({ name }) => name.startsWith("src/") && !/^src\/(cli\.ts|commands\/|setup\/)/.test(name),
    );
    expect(placesOf(library, /\bconsole\.\w+\(/)).toEqual([]);
  });

  test("only src/native/ talks to the native library", () => {
    const of = new Map([
      ["tests/support/slow-link.ts", "devices, by libc"],
      ["tests/sanitize/record.ts", "the memory that calls lead to"],
      ["tests/sanitize/leaks.test.ts", "a call of the library that looks for leaks alone"],
    ]);
    const others = typescript.filter(
      ({ name }) => !name.startsWith("src/native/") && !of.has(name),
    );
    expect(placesOf(others, /(from|import\()\s*"bun:ffi"/)).toEqual([]);
  });

  test("only the two starting points end the process", () => {
    const others = typescript.filter(
      ({ name }) => name !== "src/main.ts" && name !== "src/setup/preload.ts",
    );
    expect(placesOf(others, /\bprocess\.exit\(/)).toEqual([]);
  });

  test("the set-up imports no package: it runs before there are any", () => {
    const early = typescript.filter(({ name }) => /^src\/(main|setup|errors)\b/.test(name));
    expect(placesOf(early, /\bfrom "(?!\.|node:|bun:)/)).toEqual([]);
  });

  test("no path of one machine and nothing left undone", () => {
    expect(placesOf(texts, /(?<![\w.*)}\]-])\/(work|root|home|Users)\/\w/)).toEqual([]);
    expect(
      placesOf(texts, new RegExp(`\\b(${["TO" + "DO", "FIX" + "ME", "X" + "XX"].join("|")})\\b`)),
    ).toEqual([]);
  });
});

describe("how functions are measured", () => {
  test("in TypeScript: functions, methods and callbacks, with their signature", () => {
    const text = [
      "export function one(options: {",
      "  a: number;",
      "}): void {",
      "  if (",
      "    options",
      "  ) {",
      "  }",
      "}",
      "class Two {",
      "  async three(): Promise<void> {",
      "    for (;;) {",
      "    }",
      "  }",
      "}",
      'test("four", () => {',
      "});",
    ].join("\n");
    expect(functionsOf(sourceOf("a.ts", text))).toEqual([
      { line: 1, lineCount: 8 },
      { line: 10, lineCount: 4 },
      { line: 15, lineCount: 2 },
    ]);
  });

  test("in Zig: functions, not containers and not tests", () => {
    const text = [
      "pub fn List(comptime T: type) type {",
      "    return struct {",
      "        fn push(",
      "            item: T,",
      "        ) !void {",
      "            _ = item;",
      "        }",
      "    };",
      "}",
      "extern fn one() c_int;",
      'test "push" {',
      "}",
    ].join("\n");
    expect(functionsOf(sourceOf("a.zig", text))).toEqual([{ line: 3, lineCount: 5 }]);
  });
});

// --- internal ---

function exportsOf({ text }: Source): string[] {
  const declaration =
    /^export (?:async |abstract )*(?:function|class|const|interface|type|enum) (\w+)/gm;
  return [...text.matchAll(declaration)].map(([, name = ""]) => name);
}

function linesWhere(from: Source[], matches: (line: string) => boolean) {
  return from.flatMap(({ name, lines }) =>
    lines.flatMap((line, index) =>
      matches(line) ? [{ place: `${name}:${index + 1}`, line: line.trim() }] : [],
    ),
  );
}

function placesOf(from: Source[], pattern: RegExp): string[] {
  // This file spells the patterns out.
  const others = from.filter(({ name }) => name !== "tests/tidy.test.ts");
  return linesWhere(others, (line) => pattern.test(line)).map(
    ({ place, line }) => `${place}: ${line}`,
  );
}

/** All files reached from `starts` over `importsOf`. */
function reach(starts: string[], importsOf: (source: Source) => string[]): Set<string> {
  const byName = new Map(sources.map((source) => [source.name, source]));
  const reached = new Set<string>();
  const waiting = [...starts];
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    if (reached.has(name)) continue;
    reached.add(name);
    const source = byName.get(name);
    if (source) waiting.push(...importsOf(source));
  }
  return reached;
}

/**
 * Functions of a formatted file, found by indentation: from the line that begins the signature to
 * the closing brace at the same depth. `describe` only groups tests, and a Zig function that
 * returns a `type` is a container: what is inside them is measured instead.
 */
function functionsOf({ name, lines }: Source): { line: number; lineCount: number }[] {
  const isZig = name.endsWith(".zig");
  return lines.flatMap((line, index) => {
    if (!line.endsWith("{")) return [];
    const depth = indentOf(line);
    const start = /^\s*[)}\]]/.test(line) ? lineAtDepthBefore(lines, index, depth) : index;
    const signature = `${lines[start]} ${line}`;
    const counts = isZig ? isZigFunction(signature) : isTypescriptFunction(signature);
    if (!counts) return [];
    const end = lines.findIndex(
      (other, at) => at > index && indentOf(other) === depth && /^\s*\}/.test(other),
    );
    // A brace that opens again closed a parameter's type, not a body.
    if (lines[end]?.endsWith("{")) return [];
    return [{ line: start + 1, lineCount: (end === -1 ? lines.length : end + 1) - start }];
  });
}

function isZigFunction(signature: string): boolean {
  return (
    /^\s*(pub |export |inline |noinline )*fn /.test(signature) && !/\) type \{$/.test(signature)
  );
}

function isTypescriptFunction(signature: string): boolean {
  const start = signature.trim();
  if (/^(describe\b|if|for|while|switch|catch|\}|else)\b/.test(start)) return false;
  if (/\bfunction\b|=> \{$/.test(start)) return true;
  const method = /^((public|private|protected|static|override|async|get|set) )*[#\w]+(<.*>)?\(/;
  return method.test(start);
}

function lineAtDepthBefore(lines: string[], index: number, depth: number): number {
  let at = index - 1;
  while (at > 0 && (indentOf(lines[at] ?? "") !== depth || !lines[at]?.trim())) at -= 1;
  return at;
}

function indentOf(line: string): number {
  return line.length - line.trimStart().length;
}
