/**
 * Pipelines that the tests of a file share: each is opened when it is first asked for.
 */
import { Pipeline, type PipelineOptions } from "../../src/pipeline.ts";

export class KeptPipelines {
  private readonly opened = new Map<string | number, Promise<Pipeline>>();

  /** The one of `key`; the options are those of its first time. */
  of(key: string | number, options: PipelineOptions): Promise<Pipeline> {
    const pipeline = this.opened.get(key) ?? Pipeline.open(options);
    this.opened.set(key, pipeline);
    return pipeline;
  }

  async close(): Promise<void> {
    for (const pipeline of this.opened.values()) await (await pipeline).close();
  }
}
