/**
 * Loaded pipelines: by model, by ranks and by place on the devices. A model stays loaded until
 * another one needs its place, or its memory; that which was used least recently goes first.
 */
import { availableParallelism } from "node:os";
import { BasedXLError, stopIfAborted } from "../errors.ts";
import { Pipeline, type PipelineDependencies, type PreparedPipeline } from "../pipeline.ts";
import type { CatalogModel } from "./catalog-model.ts";
import type { Share } from "./share.ts";

/** A pipeline that is in use until it is released. */
export interface Lease {
  pipeline: Pipeline;
  prepared: PreparedPipeline;
  release(): void;
  /** Closes it, whose session is lost, and what is idle on the same GPUs. */
  discard(): Promise<void>;
}

interface Wanted {
  model: CatalogModel;
  share: Share;
  /** Which of the share's images, from 0. */
  slot: number;
  signal: AbortSignal;
}

interface PoolOptions {
  /** Models that stay loaded. */
  maxModels: number;
  onLoad: (model: string, seconds: number) => void;
  onLoadFailed?: (error: BasedXLError) => void;
  dependencies?: PipelineDependencies | undefined;
}

interface Loaded {
  key: string;
  modelId: string;
  prepared: PreparedPipeline;
  pipeline: Pipeline;
  isBusy: boolean;
  /** Counts uses. */
  usedAt: number;
}

export class PipelinePool {
  private readonly loaded: Loaded[] = [];
  /** By their keys. */
  private readonly loading = new Map<string, Promise<Loaded>>();
  private useCount = 0;

  constructor(private readonly options: PoolOptions) {}

  /** Ids of the models that are loaded. */
  models(): string[] {
    return [...new Set(this.loaded.map(({ modelId }) => modelId))];
  }

  /** One that is loaded, in use or not; null where there is none. */
  loadedPipeline(): Pipeline | null {
    return this.loaded[0]?.pipeline ?? null;
  }

  has(model: CatalogModel, share: Share): boolean {
    return this.loaded.some(({ key }) => key === keyOf(model, share, 0));
  }

  /** Loads it where it is not. Rejects with `BasedXLError`, "no-memory" among them. */
  async acquire(wanted: Wanted): Promise<Lease> {
    const { model, share, slot } = wanted;
    const key = keyOf(model, share, slot);
    const entry = await this.freeOrLoaded(key, wanted);
    entry.usedAt = ++this.useCount;
    return {
      pipeline: entry.pipeline,
      prepared: entry.prepared,
      release: () => {
        entry.isBusy = false;
      },
      discard: () => this.discard(entry),
    };
  }

  /** As a lease of it would; false where it is in use, and that use finds out, or gone. */
  async discardIdle(pipeline: Pipeline): Promise<boolean> {
    const entry = this.idle().find((each) => each.pipeline === pipeline);
    if (entry === undefined) return false;
    await this.discard(entry);
    return true;
  }

  /** Frees what is not in use, that which was used least recently; false where there is none. */
  async freeOne(): Promise<boolean> {
    const oldest = this.idle()[0];
    if (oldest === undefined) return false;
    await this.unload(oldest);
    return true;
  }

  async close(): Promise<void> {
    // Each takes itself out of the list.
    await Promise.all([...this.loaded].map((entry) => this.unload(entry)));
  }

  // --- internal ---

  /** In use. Waits for one that is being loaded for another use, which may end with that. */
  private async freeOrLoaded(key: string, wanted: Wanted): Promise<Loaded> {
    for (;;) {
      const found = this.loaded.find((each) => each.key === key && !each.isBusy);
      if (found !== undefined) {
        found.isBusy = true;
        return found;
      }
      const other = this.loading.get(key);
      if (other === undefined) break;
      await settledOrAborted(other, wanted.signal);
    }
    const loading = this.load(key, wanted);
    this.loading.set(key, loading);
    try {
      return await loading;
    } finally {
      this.loading.delete(key);
    }
  }

  private async load(key: string, { model, share, slot, signal }: Wanted): Promise<Loaded> {
    await this.makeRoom(nameOf(model));
    const startMs = performance.now();
    const prepared = preparedFor(model.prepared, share, slot);
    const pipeline = await this.loadWithin(prepared, signal);
    this.options.onLoad(model.id, (performance.now() - startMs) / 1000);
    const entry = { key, modelId: nameOf(model), prepared, pipeline, isBusy: true, usedAt: 0 };
    this.loaded.push(entry);
    return entry;
  }

  private async loadWithin(prepared: PreparedPipeline, signal: AbortSignal): Promise<Pipeline> {
    for (;;) {
      try {
        return await Pipeline.load(prepared, { signal }, this.options.dependencies);
      } catch (error) {
        const isMemory = error instanceof BasedXLError && error.code === "no-memory";
        if (isMemory && (await this.freeOne())) continue;
        if (error instanceof BasedXLError) this.options.onLoadFailed?.(error);
        throw error;
      }
    }
  }

  private async makeRoom(modelId: string): Promise<void> {
    const others = () => this.models().filter((id) => id !== modelId);
    while (others().length >= this.options.maxModels) {
      const victim = this.idle().find((entry) => entry.modelId !== modelId);
      // The others are in use: memory will say whether there is room for one more.
      if (victim === undefined) return;
      await this.unload(victim);
    }
  }

  private idle(): Loaded[] {
    return this.loaded.filter(({ isBusy }) => !isBusy).sort((a, b) => a.usedAt - b.usedAt);
  }

  /** Sessions share a context per GPU: the next one has a new one where no other holds it. */
  private async discard(entry: Loaded): Promise<void> {
    const others = this.idle().filter((each) => sharesGpu(each, entry));
    await Promise.all([entry, ...others].map((each) => this.unload(each)));
  }

  private async unload(entry: Loaded): Promise<void> {
    const place = this.loaded.indexOf(entry);
    if (place >= 0) this.loaded.splice(place, 1);
    await entry.pipeline.close();
  }
}

// --- internal ---

function sharesGpu(a: Loaded, b: Loaded): boolean {
  const [[first, end], [otherFirst, otherEnd]] = [gpusOf(a), gpusOf(b)];
  return first < otherEnd && otherFirst < end;
}

/** The first GPU and the one after the last; twice the same on the CPU. */
function gpusOf({ prepared: { devices, rankCount } }: Loaded): [number, number] {
  if (devices.gpu === null) return [0, 0];
  const first = devices.gpu.gpuFirst ?? 0;
  return [first, first + rankCount];
}

/** Whoever waits for a load that fails finds out why by a load of its own. */
async function settledOrAborted(load: Promise<unknown>, signal: AbortSignal): Promise<void> {
  const { promise: aborted, resolve } = Promise.withResolvers<void>();
  const stop = () => resolve();
  signal.addEventListener("abort", stop);
  await Promise.race([load.catch(() => {}), aborted]);
  signal.removeEventListener("abort", stop);
  stopIfAborted(signal);
}

/** A model with another VAE or refiner has weights of its own. */
function nameOf({ id, vae, refiner }: CatalogModel): string {
  return [
    id,
    ...(vae === null ? [] : [`the VAE ${vae}`]),
    ...(refiner === null ? [] : [refiner]),
  ].join(" with ");
}

function keyOf(model: CatalogModel, { ranks, images }: Share, slot: number): string {
  return `${ranks}x${images} ${slot} ${nameOf(model)}`;
}

/** The model on a part of the ranks: GPUs of its own, or a share of the CPU's threads. */
function preparedFor(
  prepared: PreparedPipeline,
  { ranks, images }: Share,
  slot: number,
): PreparedPipeline {
  const { devices, threadCount } = prepared;
  if (images === 1) return prepared;
  const threads = threadCount || prepared.machine.coreCount || availableParallelism();
  const part = {
    ...prepared,
    rankCount: ranks,
    threadCount: Math.max(1, Math.floor(threads / images)),
    devices: {
      ...devices,
      rankCount: ranks,
      gpu: devices.gpu && { ...devices.gpu, gpuFirst: slot * ranks },
    },
  };
  return { ...part, plan: Pipeline.plan(part, prepared.request, prepared.plan.read) };
}
