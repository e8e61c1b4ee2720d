/**
 * Contents of a binary: the types of its list of files, and the empty list of a clone. The build
 * replaces this module's values by a generated module (src/setup/binary.ts).
 */

/** Files are extracted in groups, each on first use. */
export type Group = "library" | "images" | "model" | "controlnet" | "clip";

export interface EmbeddedFile {
  group: Group;
  /** Path below the folder of the version, with forward slashes. */
  name: string;
  bytes: number;
  /** SHA-256 of the contents, in hex. */
  sha256: string;
  /** Bun's path of the embedded contents; readable like a file. */
  source: string;
}

interface Versions {
  basedxl: string;
  bun: string;
  zig: string;
  /** Architectures, "" for a build without nvcc; null = ask the library. */
  cudaKernels: string | null;
}

/** One bundled package or library, for `basedxl licenses`. */
export interface License {
  name: string;
  version: string;
  /** SPDX where there is one. */
  license: string;
  /** URL of its source. */
  source: string;
  /** The whole text, copyright lines included. */
  text: string;
}

/** State of the folder a binary extracts to, for `doctor`. */
export interface CacheReport {
  /** null where no folder can be used; `problem` says why. */
  path: string | null;
  problem: string | null;
  /** Bytes of this version, extracted so far. */
  bytes: number;
  /** Folders of other versions beside it. */
  others: string[];
}

/** The files and facts that differ between a clone and a binary. */
export interface Resources {
  isBinary: boolean;
  /** Path of libbasedxl; may throw "setup". Need not exist. */
  nativeLibrary(): string;
  /** Path of the emulator library, null in a binary. Need not exist. */
  emulator(): string | null;
  /** Builds the emulator library where it is stale, in a clone; may throw "setup". */
  buildEmulator(report: (line: string) => void): Promise<void>;
  /** The remedy for a missing or old library, as the end of a sentence. */
  rebuildHint: string;
  /** The folder of the bundled model; may throw "setup". */
  bundledModel(): string;
  /** The folder of the ControlNet of outlines for it; may throw "setup". */
  bundledControlNet(): string;
  /** The folder of CLIP's vocabulary; may throw "setup". */
  clipVocabulary(): string;
  /** Code of the thread that hashes files. */
  hashWorker: string;
  cacheReport(): CacheReport | null;
  licenses(): Promise<License[]>;
  versions(): Versions;
}

export interface Contents {
  versions: Versions;
  files: readonly EmbeddedFile[];
  licenses: readonly License[];
}

export const contents: Contents = {
  versions: { basedxl: "", bun: "", zig: "", cudaKernels: null },
  files: [],
  licenses: [],
};
