/**
 * Hashes of the files that make an image, computed piece by piece while it is generated. Small
 * files are always hashed; others are left out where they are not done in time.
 */

import { realpathSync, statSync } from "node:fs";
import { basename, dirname } from "node:path";
import { stopIfAborted } from "../errors.ts";
import { HashCache } from "../library/hashes.ts";
import type { PlannedRequest, PreparedPipeline } from "../pipeline.ts";
import { resources } from "../resources.ts";

/** A file, and from which byte on its hash counts. */
interface Wanted {
  path: string;
  start: number;
}

/** Files beside the model's. */
interface FilesOfImages extends Pick<PlannedRequest, "loras"> {
  embeddings: Pick<PlannedRequest["embeddings"], "used">;
}

export class FileHashes implements Disposable {
  private readonly hashes = new Map<string, string>();
  private readonly stop = new AbortController();
  private readonly small: Promise<void>;
  private readonly large: Promise<void>;
  private isDone = false;
  /** When waiting ends, for all images together. */
  private deadlineMs: number | null = null;

  /** Begins to hash; without a `cache` nothing is looked up or kept. */
  constructor(
    files: readonly Wanted[],
    private readonly cache: HashCache | null,
  ) {
    const isSmall = ({ path, start }: Wanted) => {
      return cache?.known(path, start) != null || bytesOf(path) <= smallBytes;
    };
    this.small = this.hash(files.filter(isSmall));
    const others = files.filter((file) => !isSmall(file));
    this.large = this.hashLarge(others);
  }

  /** The hash of the file in 64 digits; null where it is not known (yet). */
  of(path: string, start = 0): string | null {
    return this.hashes.get(keyOf({ path, start })) ?? null;
  }

  /**
   * Waits until all is known, for large files at most `waitMs` from the first call on; `onWait` is
   * called before a wait that people notice. Resolves to whether all is known; throws "cancelled"
   * at once after `signal`.
   */
  async settled(waitMs: number, onWait: () => void, signal: AbortSignal): Promise<boolean> {
    await this.small;
    if (this.isDone) return true;
    this.deadlineMs ??= performance.now() + waitMs;
    const leftMs = () => Math.max(0, (this.deadlineMs ?? 0) - performance.now());
    await Promise.race([this.large, Bun.sleep(Math.min(leftMs(), noticedMs))]);
    if (this.isDone || leftMs() === 0) return this.isDone;
    onWait();
    const { promise: stopped, resolve: stop } = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => stop());
    if (!signal.aborted) await Promise.race([this.large, stopped, Bun.sleep(leftMs())]);
    stopIfAborted(signal);
    return this.isDone;
  }

  /** Ends what goes on, and keeps what was computed. */
  [Symbol.dispose](): void {
    this.stop.abort();
    this.cache?.save();
  }

  // --- internal ---

  private async hashLarge(files: readonly Wanted[]): Promise<void> {
    await this.small;
    await this.hash(files);
    this.isDone = true;
  }

  /** One after the other. What cannot be read has no hash. */
  private async hash(files: readonly Wanted[]): Promise<void> {
    for (const file of files) {
      const { path, start } = file;
      try {
        const { signal } = this.stop;
        const cache = this.cache ?? new HashCache(null);
        const sha256 = nameInHub(path, start) ?? (await cache.hashOf(path, { signal, start }));
        this.hashes.set(keyOf(file), sha256);
      } catch {
        if (this.stop.signal.aborted) return;
      }
    }
  }
}

/**
 * Begins to hash what makes the images of a plan. A `cache` is for programs that make many: what it
 * knows is not read again.
 */
export function startHashing(
  {
    model,
    refiner,
    vae,
    plan,
  }: Pick<PreparedPipeline, "model" | "refiner" | "vae"> & {
    plan: FilesOfImages;
  },
  cache?: HashCache,
): FileHashes {
  const whole = [
    ...model.weights.unet.files,
    ...(refiner?.weights.unet.files ?? []),
    ...(vae === null ? [] : model.weights.vae.files),
    ...plan.embeddings.used.map(({ path }) => path),
  ];
  const wanted = [
    ...whole.map((path) => ({ path, start: 0 })),
    ...plan.loras.map(({ path, file }) => ({ path, start: 8 + file.header.headerBytes })),
  ];
  const distinct = [...new Map(wanted.map((each) => [keyOf(each), each])).values()];
  // The bundled model alone takes no time, and leaves no file behind.
  const isQuick = isBundled(model) && distinct.length === model.weights.unet.files.length;
  return new FileHashes(distinct, cache ?? (isQuick ? null : new HashCache()));
}

/** Whether the model is the one that comes with the program, by whatever name. */
export function isBundled({ path }: { path: string }): boolean {
  return path === resources.bundledModel();
}

// --- internal ---

/** Hashed in a moment on any machine. */
const smallBytes = 2 ** 26;
const noticedMs = 300;

function keyOf({ path, start }: Wanted): string {
  return `${start} ${path}`;
}

function bytesOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

/** The cache of the Hugging Face hub names large files after their hash. */
function nameInHub(path: string, start: number): string | null {
  if (start !== 0) return null;
  const real = realpathSync(path);
  const isBlob = basename(dirname(real)) === "blobs" && /^[0-9a-f]{64}$/.test(basename(real));
  return isBlob ? basename(real) : null;
}
