/**
 * What a download has done so far, as `onDownload` gets it.
 */

export interface DownloadedFile {
  /** Path in the repository; foreign text. */
  name: string;
  bytes: number;
  doneBytes: number;
}

export interface DownloadProgress {
  /** "org/name@revision"; foreign text. */
  what: string;
  files: readonly DownloadedFile[];
  bytes: number;
  /** Of all files; those that were there before count. */
  doneBytes: number;
  /** Those that came over the network in this run. */
  fetchedBytes: number;
}
