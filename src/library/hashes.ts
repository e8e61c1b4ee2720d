/**
 * SHA-256 of model files, which sites of models know them by. A hash is kept in the cache folder
 * for as long as the file's size and time of change are the same. The cache may be lost or damaged
 * at any time.
 */
import { readFileSync, renameSync, rmSync, type Stats, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { openFolder } from "../binary/cache.ts";
import { type Sha256Options, sha256Of } from "./sha256.ts";

/** The first digits of the hash, as A1111 and Civitai show it (AutoV2). */
export function shortHash(sha256: string): string {
  return sha256.slice(0, 10);
}

/**
 * The first digits as A1111 and sites show those of LoRAs, hashed from behind the header, which
 * programs rewrite (AutoV3), and of whole embeddings.
 */
export function adapterHash(sha256: string): string {
  return sha256.slice(0, 12);
}

/** Hashes by path, in one file of the cache folder. */
export class HashCache {
  private entries: Entries;
  private hasNew = false;

  /** Without a folder (null) nothing is kept. */
  constructor(private readonly folder: string | null = openFolder()) {
    this.entries = this.read();
  }

  /** The hash that is known of the file; null where it changed or was never computed. */
  known(path: string, start = 0): string | null {
    const key = keyOf(path, start);
    const entry = Object.hasOwn(this.entries, key) ? this.entries[key] : undefined;
    return entry !== undefined && isUnchanged(entry, statOf(path)) ? entry[2] : null;
  }

  /** The hash of the file, computed if it is not known. Rejects where the file cannot be read. */
  async hashOf(path: string, options: Sha256Options = {}): Promise<string> {
    const { start = 0 } = options;
    const known = this.known(path, start);
    if (known !== null) return known;
    const before = statOf(path);
    const sha256 = await sha256Of(path, options);
    // A file that changed meanwhile has the hash of no version of it.
    const entry = [String(before?.size), String(before?.mtimeNs), sha256] as const;
    if (isUnchanged(entry, statOf(path))) {
      this.entries[keyOf(path, start)] = [...entry];
      this.hasNew = true;
    }
    return sha256;
  }

  /** A file, unchanged since, whose hash begins with `digits`; null where none is known. */
  fileWith(digits: string): string | null {
    for (const [key, entry] of Object.entries(this.entries)) {
      const path = pathIn(key);
      if (entry[2].startsWith(digits) && isUnchanged(entry, statOf(path))) return path;
    }
    return null;
  }

  /** Writes what is new, with what other runs have written meanwhile. Never throws. */
  save(): void {
    if (this.folder === null || !this.hasNew) return;
    const path = join(this.folder, fileName);
    const part = `${path}.${crypto.randomUUID()}.part`;
    try {
      const all = withoutLost({ ...this.read(), ...this.entries });
      writeFileSync(part, JSON.stringify({ version, files: all }), { flag: "wx", mode: 0o600 });
      renameSync(part, path);
      this.hasNew = false;
    } catch {
      rmSync(part, { force: true });
    }
  }

  // --- internal ---

  private read(): Entries {
    if (this.folder === null) return {};
    try {
      const path = join(this.folder, fileName);
      if (!isSmall(statSync(path))) return {};
      const { files } = v.parse(fileSchema, JSON.parse(readFileSync(path, "utf8")));
      return files;
    } catch {
      return {};
    }
  }
}

// --- internal ---

const fileName = "hashes.json";
const version = 1;
/** Above it, files that are no longer there are forgotten. */
const entryCountMax = 20_000;
const cacheBytesMax = 2 ** 26;

/** Size and time of change in nanoseconds, both as texts of digits, and the hash. */
const entrySchema = v.tuple([
  v.pipe(v.string(), v.digits()),
  v.pipe(v.string(), v.digits()),
  v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
]);
const fileSchema = v.object({
  version: v.literal(version),
  files: v.record(v.string(), entrySchema),
});
type Entry = v.InferOutput<typeof entrySchema>;
type Entries = Record<string, Entry>;

/** A path alone, or with where the hashed bytes begin. */
function keyOf(path: string, start: number): string {
  return start === 0 ? path : `${path}\0${start}`;
}

function pathIn(key: string): string {
  return key.split("\0")[0]!;
}

function isUnchanged(entry: Readonly<Entry>, stat: ReturnType<typeof statOf>): boolean {
  return entry[0] === String(stat?.size) && entry[1] === String(stat?.mtimeNs);
}

function statOf(path: string) {
  try {
    return statSync(path, { bigint: true, throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

function isSmall(stat: Stats): boolean {
  return stat.isFile() && stat.size <= cacheBytesMax;
}

function withoutLost(entries: Entries): Entries {
  const all = Object.entries(entries);
  if (all.length <= entryCountMax) return entries;
  return Object.fromEntries(all.filter(([key]) => statOf(pathIn(key)) !== undefined));
}
