/**
 * The repository's source files and what each imports, for the rules of the house.
 */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

export const root = join(import.meta.dir, "../..");

export interface Source {
  /** Path from the root, with forward slashes. */
  name: string;
  text: string;
  lines: string[];
}

/** The files that match, but for packages, fixtures and assets. */
export function readSources(patterns: string[]): Source[] {
  const names = patterns.flatMap((pattern) => [
    ...new Bun.Glob(pattern).scanSync({ cwd: root, dot: true }),
  ]);
  return [...new Set(names)]
    .filter((name) => !/(^|\/)(node_modules|fixtures|assets|\.venv)\//.test(name))
    .sort()
    .map((name) => sourceOf(name, readFileSync(join(root, name), "utf8")));
}

export function sourceOf(name: string, text: string): Source {
  return { name, text, lines: text.replace(/\n$/, "").split("\n") };
}

/** Files that a TypeScript file imports for values or types, or starts by name, from the root. */
export function typescriptImports({ name, text }: Source): string[] {
  return [...text.matchAll(/(?:\bfrom|\bimport\(?|\bURL\()\s*"(\.[^"]+)"/g)].map(([, path = ""]) =>
    normalize(join(dirname(name), path)),
  );
}

/** Packages that a TypeScript file imports, without what is inside them. */
export function packageImports({ text }: Source): string[] {
  return [...text.matchAll(/(?:\bfrom|\bimport\(?)\s*"([^."][^"]*)"/g)]
    .map(([, path = ""]) => path)
    .filter((path) => !/^(node|bun):|^bun$/.test(path))
    .map((path) => /^(@[^/]+\/[^/]+|[^/]+)/.exec(path)?.[0] ?? path);
}

/** Zig files that a Zig file imports; build.zig names root files from the repository's root. */
export function zigImports({ name, text }: Source): string[] {
  const imported = [...text.matchAll(/@import\("([^"]+\.zig)"\)/g)].map(([, path = ""]) =>
    normalize(join(dirname(name), path)),
  );
  const named = [...text.matchAll(/"((?:zig|cuda)\/[^"]+\.zig)"/g)].map(([, path = ""]) => path);
  return [...imported, ...named].filter((path) => existsSync(join(root, path)));
}
