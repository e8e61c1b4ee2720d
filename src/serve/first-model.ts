/**
 * The model that a server loads before a job asks for it, and again where its session is lost and
 * no job would find out.
 */
import type { Pipeline } from "../pipeline.ts";
import type { CatalogModel } from "./catalog-model.ts";
import type { ServeLog } from "./log.ts";
import type { PipelinePool } from "./pool.ts";
import type { Readiness } from "./readiness.ts";
import type { Share } from "./share.ts";

interface FirstModelOptions {
  pool: PipelinePool;
  model: CatalogModel;
  share: Share;
  readiness: Readiness;
  log: ServeLog;
}

export class FirstModel {
  private readonly stopped = new AbortController();
  /** Of loads, one after the other; never rejects. */
  private last = Promise.resolve();

  constructor(private readonly options: FirstModelOptions) {}

  get isStopped(): boolean {
    return this.stopped.signal.aborted;
  }

  /** Never rejects. */
  load(): Promise<void> {
    return this.inTurn(() => this.acquire());
  }

  /** Closes `lost` and loads another, unless a job uses it: that one finds out. Never rejects. */
  replace(lost: Pipeline): Promise<void> {
    return this.inTurn(async () => {
      if (await this.options.pool.discardIdle(lost)) await this.acquire();
    });
  }

  async stop(): Promise<void> {
    this.stopped.abort();
    await this.last;
  }

  // --- internal ---

  private inTurn(act: () => Promise<void>): Promise<void> {
    const { readiness, log } = this.options;
    this.last = this.last.then(act).catch(({ message }: Error) => {
      readiness.noteFailed();
      if (!this.isStopped) log.error("model_failed", { message });
    });
    return this.last;
  }

  private async acquire(): Promise<void> {
    const { pool, model, share } = this.options;
    (await pool.acquire({ model, share, slot: 0, signal: this.stopped.signal })).release();
  }
}
