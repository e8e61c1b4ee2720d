/**
 * The folder of outputs: every image is written whole or not at all, under a name that its job and
 * its place in it decide, so that no image is there twice. Names from requests are names of files
 * in the folder and nothing else.
 */
import { mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { readdir, rm, stat } from "node:fs/promises";
import { basename, extname, join } from "node:path";
import { BasedXLError, escaped } from "../errors.ts";
import { imageFormats, imageSizeOf } from "../image/encoder.ts";
import { temporaryFile, writeWhole } from "../image/files.ts";
import { absolutePath } from "../paths.ts";
import { ImageStore } from "./image-store.ts";

/** An image of the folder. */
interface OutputFile {
  name: string;
  bytes: number;
  modifiedAt: number;
  type: string;
}

export class Outputs extends ImageStore {
  private constructor(readonly folder: string) {
    super();
  }

  /**
   * Makes the folder and removes what a server left that was killed; where others write into it
   * too, only what is old. Throws "io".
   */
  static open(path: string, { isShared = false } = {}): Outputs {
    const folder = absolutePath(path);
    const leftBefore = Date.now() - (isShared ? temporaryMsMax : 0);
    try {
      mkdirSync(folder, { recursive: true });
      for (const name of readdirSync(folder)) {
        if (!temporaryFile.test(name)) continue;
        const found = statSync(join(folder, name), { throwIfNoEntry: false });
        if ((found?.mtimeMs ?? 0) <= leftBefore) rmSync(join(folder, name), { force: true });
      }
    } catch (error) {
      const why = escaped((error as Error).message, 200);
      throw new BasedXLError("io", `The folder of outputs ${escaped(path, 300)}: ${why}.`);
    }
    return new Outputs(folder);
  }

  /** Keeps an image that was made elsewhere. */
  async keep(file: string, bytes: Uint8Array): Promise<void> {
    await writeWhole(join(this.folder, file), bytes);
  }

  /** The path of the image of this name; null for what is no image of the folder. */
  pathOf(name: string): string | null {
    if (typeOf(name) === null || basename(name) !== name || name.startsWith(".")) return null;
    if (/[\\\0]/.test(name) || name.length > 255) return null;
    const path = join(this.folder, name);
    return statSync(path, { throwIfNoEntry: false })?.isFile() ? path : null;
  }

  /** Images by name, the last first: names begin with the time. */
  async list({ before, limit = 100 }: { before?: string | undefined; limit?: number | undefined }) {
    const names = await readdir(this.folder);
    const wanted = names
      .filter((name) => typeOf(name) !== null && !name.startsWith("."))
      .filter((name) => before === undefined || name < before)
      .sort((a, b) => (a < b ? 1 : -1))
      .slice(0, limit);
    const files = await Promise.all(wanted.map((name) => this.fileOf(name)));
    return files.filter((file) => file !== null);
  }

  async remove(path: string): Promise<void> {
    await rm(path, { force: true });
  }

  // --- internal ---

  protected async put(file: string, bytes: Uint8Array, _: string, signal: AbortSignal) {
    await writeWhole(join(this.folder, file), bytes, signal);
  }

  protected async look(file: string) {
    const path = join(this.folder, file);
    const bytes = statSync(path, { throwIfNoEntry: false })?.size;
    const size = bytes === undefined ? null : await imageSizeOf(path);
    return bytes === undefined || size === null ? null : { bytes, size };
  }

  private async fileOf(name: string): Promise<OutputFile | null> {
    try {
      const found = await stat(join(this.folder, name));
      if (!found.isFile()) return null;
      return { name, bytes: found.size, modifiedAt: found.mtimeMs, type: typeOf(name)! };
    } catch {
      // Deleted meanwhile.
      return null;
    }
  }
}

// --- internal ---

/** Nobody writes an image for so long. */
const temporaryMsMax = 3_600_000;

/** The type of MIME by the ending; null for what is no image. */
function typeOf(name: string): string | null {
  const ending = extname(name).slice(1).toLowerCase();
  const format = imageFormats.find((each) => each === (ending === "jpg" ? "jpeg" : ending));
  return format === undefined ? null : `image/${format}`;
}
