/**
 * Whether the server takes jobs, for /ready. Any model that is loaded makes it ready: one that
 * cannot be loaded keeps its own jobs from running, and no others, unless a GPU has failed.
 */

export class Readiness {
  private state: "loading" | "failed" | "gpu" | "loaded" = "loading";

  /** `isStopping` says whether the server takes no job any more. */
  constructor(private readonly isStopping: () => boolean) {}

  noteLoaded(): void {
    this.state = "loaded";
  }

  /** Of the first model, which nobody asked for. */
  noteFailed(): void {
    if (this.state === "loading") this.state = "failed";
  }

  /** No model can be loaded on a GPU that does not work. */
  noteGpuFailed(): void {
    this.state = "gpu";
  }

  /** Null when it is ready. Everybody may read it: paths and causes are the log's. */
  whyNot(): string | null {
    if (this.isStopping()) return "The server stops.";
    return this.state === "loaded" ? null : sentences[this.state];
  }
}

// --- internal ---

const sentences = {
  loading: "The first model is being loaded.",
  failed:
    "The first model could not be loaded, and the log says why. The server is ready when a job " +
    "has loaded another one, or that one once it is mended.",
  gpu:
    "A GPU has failed, and the log says which. The server is ready when a job has loaded its " +
    "model again; where none can, start the server again.",
} as const;
