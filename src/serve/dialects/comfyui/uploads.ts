/**
 * Images that clients of ComfyUI upload before the prompts that name them: in a folder of their own
 * beside the outputs, each file named by all of its name in a form that is no path. The oldest go
 * where they are too many.
 * Source: ComfyUI, server.py (image_upload) and folder_paths.py (annotated_filepath).
 */
import { existsSync, mkdirSync } from "node:fs";
import { readdir, rm, stat } from "node:fs/promises";
import { join, posix } from "node:path";
import { writeWhole } from "../../../image/files.ts";

/** An image as ComfyUI's clients name it. */
export interface ImageRef {
  filename: string;
  subfolder: string;
  type: string;
}

export class Uploads {
  private readonly folder: string;
  /** One after the other, so that a name is given once. */
  private last: Promise<unknown> = Promise.resolve();
  private count = 0;

  /** In the folder of outputs. */
  constructor(outputs: string) {
    this.folder = join(outputs, ".basedxl-uploads");
  }

  /** The name under which the image is kept; null for a name that is no image's. */
  async add(ref: ImageRef, bytes: Uint8Array, overwrites: boolean): Promise<ImageRef | null> {
    const kept = this.last.then(() => this.write(ref, bytes, overwrites));
    this.last = kept.catch(() => {});
    return await kept;
  }

  async read(ref: ImageRef): Promise<Uint8Array | null> {
    const path = this.pathOf(ref);
    return path !== null && existsSync(path) ? await Bun.file(path).bytes() : null;
  }

  /** Names of those that nodes list. */
  async names(): Promise<string[]> {
    const files = existsSync(this.folder) ? await readdir(this.folder) : [];
    const own = files.filter((file) => file.startsWith(prefixOf("input")));
    return own.map((file) => decodeURIComponent(file.slice(prefixOf("input").length))).sort();
  }

  // --- internal ---

  private async write(ref: ImageRef, bytes: Uint8Array, overwrites: boolean) {
    const [stem, ending] = /^(.*?)(\.[^.]*)?$/s.exec(ref.filename)!.slice(1);
    for (let copy = 0; copy <= copiesMax; copy++) {
      const suffix = copy === 0 ? "" : ` (${copy})`;
      const named = { ...ref, filename: `${stem}${suffix}${ending ?? ""}` };
      const path = this.pathOf(named);
      if (path === null) return null;
      if (!overwrites && existsSync(path)) {
        if (Buffer.compare(await Bun.file(path).bytes(), bytes) === 0) return named;
        continue;
      }
      mkdirSync(this.folder, { recursive: true });
      await writeWhole(path, bytes);
      if (this.count++ % checkEvery === 0) await this.removeOldest();
      return named;
    }
    return null;
  }

  /** null for names that lead out of their folder or are too long. */
  private pathOf({ filename, subfolder, type }: ImageRef): string | null {
    const isName = types.has(type) && /^[^/\\\0]+$/.test(filename);
    const name = posix.join("/", subfolder, filename).slice(1);
    if (!isName || name !== posix.join(subfolder || ".", filename)) return null;
    const file = prefixOf(type) + encodeURIComponent(name.toWellFormed());
    return Buffer.byteLength(file) <= 240 ? join(this.folder, file) : null;
  }

  private async removeOldest(): Promise<void> {
    const names = await readdir(this.folder);
    const files = await Promise.all(
      names.map(async (name) => {
        const path = join(this.folder, name);
        const { size, mtimeMs } = await stat(path);
        return { path, size, mtimeMs };
      }),
    );
    files.sort((a, b) => b.mtimeMs - a.mtimeMs);
    let bytes = 0;
    for (const [place, { path, size }] of files.entries()) {
      bytes += size;
      if (place >= filesMax || (bytes > bytesMax && place > 0)) await rm(path, { force: true });
    }
  }
}

/** A node's name of an image: `sub/a.png`, with "[output]" or "[temp]" behind for other folders. */
export function refOf(name: string): ImageRef {
  const [, path = name, type = "input"] = /^(.*?)\s?\[(input|output|temp)\]$/s.exec(name) ?? [];
  const { dir, base } = posix.parse(path);
  return { filename: base, subfolder: dir, type };
}

// --- internal ---

/** Images that were generated are those of jobs. */
const types = new Set(["input", "temp"]);
const copiesMax = 1000;
const filesMax = 1000;
const bytesMax = 2 ** 31;
/** Uploads between two looks at how many there are. */
const checkEvery = 20;

function prefixOf(type: string): string {
  return `${type}~`;
}
