/**
 * The sessions of a base model and a refiner. Both stay open where memory suffices; else each is
 * opened when its turn comes, after the other was closed, and a warning says so.
 */
import { BasedXLError } from "../errors.ts";
import type { JobSession } from "./job.ts";
import type { OpenOptions } from "./open-options.ts";
import type {
  ImageHooks,
  ImageRequest,
  ImageResult,
  UpscaleRequest,
  UpscaleResult,
} from "./session.ts";

type OpenHooks = Pick<OpenOptions, "onProgress" | "signal">;

/** One of the two models. */
export interface Opening {
  /** Bytes that it needs; rejects with "no-memory" where it does not fit beside so many more. */
  check(besideBytes: number, hooks: OpenHooks): Promise<number>;
  open(hooks: OpenHooks): Promise<JobSession>;
}

/** Models of which one at a time must fit into memory. */
export class TwoSessions implements JobSession {
  readonly base: JobSession;
  readonly refiner: JobSession;
  private readonly opened: [JobSession | null, JobSession | null] = [null, null];
  private takesTurns = false;

  constructor(
    private readonly models: readonly [base: Opening, refiner: Opening],
    /** Called where they take turns; null where both must fit. */
    private readonly onTurns: (() => void) | null,
  ) {
    this.base = this.sessionOf(0);
    this.refiner = this.sessionOf(1);
  }

  /** Opens both, or as many as fit. What does not fit alone is refused before either loads. */
  async open(hooks: OpenHooks): Promise<void> {
    const [base, refiner] = this.models;
    const baseBytes = await base.check(0, hooks);
    if (await this.isTooMuch(refiner.check(baseBytes, hooks))) {
      await refiner.check(0, hooks);
      this.takeTurns();
    }
    await this.opening(0, hooks);
    if (this.takesTurns) return;
    if (await this.isTooMuch(this.opening(1, hooks))) this.takeTurns();
  }

  /** A job without a refiner. */
  image(request: ImageRequest, hooks?: ImageHooks): Promise<ImageResult> {
    return this.base.image(request, hooks);
  }

  upscale(request: UpscaleRequest, hooks?: ImageHooks): Promise<UpscaleResult> {
    return this.base.upscale(request, hooks);
  }

  async close(): Promise<void> {
    await this.closing(0);
    await this.closing(1);
  }

  // --- internal ---

  private sessionOf(which: 0 | 1): JobSession {
    return {
      image: (request, hooks) => this.run(which, hooks, (session) => session.image(request, hooks)),
      upscale: (request, hooks) =>
        this.run(which, hooks, (session) => session.upscale(request, hooks)),
      close: () => this.closing(which),
    };
  }

  private async run<T>(
    which: 0 | 1,
    hooks: ImageHooks = {},
    work: (session: JobSession) => Promise<T>,
  ): Promise<T> {
    const run = async () => await work(await this.opening(which, hooks));
    try {
      return await run();
    } catch (error) {
      // Without memory for it beside the other model, that one is closed.
      if (!this.isShort(error) || this.opened[other(which)] === null) throw error;
      await this.closing(other(which));
      this.takeTurns();
    }
    return await run();
  }

  private async opening(which: 0 | 1, hooks: OpenHooks): Promise<JobSession> {
    const known = this.opened[which];
    if (known !== null) return known;
    if (this.takesTurns) await this.closing(other(which));
    const session = await this.models[which].open(hooks);
    this.opened[which] = session;
    return session;
  }

  /** Whether memory is short for it beside the other, and turns help. */
  private async isTooMuch(work: Promise<unknown>): Promise<boolean> {
    try {
      await work;
      return false;
    } catch (error) {
      if (this.isShort(error)) return true;
      throw error;
    }
  }

  private isShort(error: unknown): boolean {
    if (this.onTurns === null) return false;
    return error instanceof BasedXLError && error.code === "no-memory" && !error.sessionLost;
  }

  private takeTurns(): void {
    if (!this.takesTurns) this.onTurns?.();
    this.takesTurns = true;
  }

  private async closing(which: 0 | 1): Promise<void> {
    const session = this.opened[which];
    this.opened[which] = null;
    await session?.close();
  }
}

// --- internal ---

const other = (which: 0 | 1) => (which === 0 ? 1 : 0);
