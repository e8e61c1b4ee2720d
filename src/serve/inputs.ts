/**
 * The images that jobs start from, named by what they hold: kept beside the jobs until these have
 * ended, so that a restart finds them.
 */
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { badOption } from "../errors.ts";
import { imageSizeOf } from "../image/encoder.ts";
import { writeWhole } from "../image/files.ts";
import { allFiles, awaitFiles, inputSettings, mapFiles } from "./input-files.ts";
import type { InputImages, JobSpec } from "./jobs/types.ts";

type Names = NonNullable<JobSpec["inputs"]>;

export class Inputs {
  private readonly folder: string;
  /** Jobs that are being taken, whose images nobody names yet. */
  private takenCount = 0;

  /** In the folder of outputs. */
  constructor(outputs: string) {
    this.folder = join(outputs, ".basedxl-inputs");
    mkdirSync(this.folder, { recursive: true });
  }

  /** Writes them, and keeps them at least until `take` has ended. */
  async keep<T>(images: InputImages, take: (names: Names) => T): Promise<T> {
    this.takenCount += 1;
    try {
      return take(await awaitFiles(mapFiles(images, (bytes) => this.write(bytes))));
    } finally {
      this.takenCount -= 1;
    }
  }

  async read(names: Names): Promise<InputImages> {
    return await awaitFiles(mapFiles(names, (name) => Bun.file(join(this.folder, name)).bytes()));
  }

  /** Refuses what has more pixels, before they take memory. */
  async checkSizes(images: InputImages, megapixelsMax: number): Promise<void> {
    for (const bytes of allFiles(images)) await checkPixels(bytes, megapixelsMax);
  }

  /** What a request says to start from them. */
  requestOf(names: Names) {
    return inputSettings(mapFiles(names, (name) => join(this.folder, name)));
  }

  /** Removes all but those of `jobs`, unless others are just being taken. */
  keepOnly(jobs: readonly JobSpec[]): void {
    if (this.takenCount > 0) return;
    const used = new Set(jobs.flatMap(({ inputs }) => (inputs ? allFiles(inputs) : [])));
    for (const name of readdirSync(this.folder)) {
      if (!used.has(name)) rmSync(join(this.folder, name), { force: true });
    }
  }

  // --- internal ---

  private async write(bytes: Uint8Array): Promise<string> {
    const name = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
    await writeWhole(join(this.folder, name), bytes);
    return name;
  }
}

/** Throws "bad-option" for more pixels; what is no image is left to others. */
export async function checkPixels(bytes: Uint8Array, megapixelsMax: number): Promise<void> {
  const size = await imageSizeOf(bytes);
  const megapixels = size === null ? 0 : (size.width * size.height) / 1e6;
  if (megapixels <= megapixelsMax) return;
  throw badOption(
    `Images of requests have at most ${megapixelsMax} million pixels here, not ${megapixels}.`,
  );
}
