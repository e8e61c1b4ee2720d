/**
 * The public API: a model that is loaded once and generates images many times.
 *
 *   const pipeline = await Pipeline.open({ model: "sdxl" });
 *   const { images } = await pipeline.generate({ prompt: "a red house", seeds: [7n] });
 *   await pipeline.close();
 *
 * `generate` gives one promise per job and takes a handler for its events. A promise has one
 * outcome, so that no job is left half consumed and no rejection unhandled, as with an iterator
 * that nobody drains; and a handler is awaited, so that a slow reader (a disk, a client) holds the
 * next batch back and memory stays flat.
 *
 * In reading order: `prepare.ts` (model, devices and plan, before weights load), `request.ts` (what
 * is asked, defaults and checks, batches), `layout.ts` (how ranks share it), `prompts.ts`,
 * `queue.ts`, `job.ts` (batches through a session), `session.ts` (one batch through the native
 * library), `events.ts`; with a refiner `refine.ts` (both requests), `refined-job.ts` and
 * `two-sessions.ts`.
 */
import { BasedXLError, cancelled } from "./errors.ts";
import type { ImageSource } from "./image/read.ts";
import type { Model } from "./models/model.ts";
import { stepCountMax } from "./native/abi.ts";
import { probeDevice } from "./native/device-info.ts";
import type { UpscalerNetwork } from "./networks/network.ts";
import type { PipelineEvent } from "./pipeline/events.ts";
import { type GenerateResult, type JobSession, runJob } from "./pipeline/job.ts";
import { type OpenOptions, openOptionsOf } from "./pipeline/open-options.ts";
import {
  type PrepareDependencies,
  type PreparedPipeline,
  type PrepareOptions,
  preparePipeline,
} from "./pipeline/prepare.ts";
import type { Progress } from "./pipeline/progress.ts";
import { JobQueue } from "./pipeline/queue.ts";
import { noImages, type ReadImages, readImages } from "./pipeline/read-images.ts";
import { planImages } from "./pipeline/refine.ts";
import { type RefinedSessions, runRefinedJob } from "./pipeline/refined-job.ts";
import type { GenerateRequest, PlannedRequest } from "./pipeline/request.ts";
import { checkSession, openSession } from "./pipeline/session.ts";
import { type Opening, TwoSessions } from "./pipeline/two-sessions.ts";

import {
  type UpscaledImage,
  type UpscaleOptions,
  upscaleImage,
  upscalerOf,
} from "./pipeline/upscale.ts";

export type { PlannedLora } from "./adapters/plan.ts";
export { type LoraReport, loraLines, reportLoras } from "./adapters/report.ts";
export { dtypeOf } from "./devices.ts";
export { type EmbeddingReport, embeddingLines, reportEmbeddings } from "./embeddings/report.ts";
export { BasedXLError, type ErrorCode } from "./errors.ts";
export type { ImageSource, RawImage } from "./image/read.ts";
export type { Rates } from "./pipeline/device-rates.ts";
export {
  type Estimate,
  estimate,
  type MemoryEstimate,
  type PartEstimate,
  type PassEstimate,
} from "./pipeline/estimate.ts";
export type {
  GeneratedImage,
  ImageEvent,
  JobProgress,
  PipelineEvent,
  PreviewEvent,
  ProgressEvent,
  StartEvent,
  WarningEvent,
} from "./pipeline/events.ts";
export { finalSize } from "./pipeline/hires.ts";
export type { GenerateResult } from "./pipeline/job.ts";
export type { ImageOrigin } from "./pipeline/origin.ts";
export {
  type PreparedPipeline,
  type PrepareOptions,
  preparePipeline,
  withRefiner,
} from "./pipeline/prepare.ts";
export type { Progress } from "./pipeline/progress.ts";
export { noImages, type ReadImages, readImages } from "./pipeline/read-images.ts";
export type { GenerateRequest, ImageRange, PlannedRequest } from "./pipeline/request.ts";
export { medianMs, type StageTimings } from "./pipeline/timings.ts";
export type { UpscaledImage, UpscaleOptions } from "./pipeline/upscale.ts";
export type { EmbeddingChoice } from "./settings/embedding.ts";
export type { LoraChoice } from "./settings/lora.ts";

export interface LoadOptions {
  /** Called while weights load, and awaited; where it fails, loading stops with its error. */
  onProgress?: ((progress: Progress) => void | Promise<void>) | undefined;
  /** Stops loading, which then rejects with "cancelled". */
  signal?: AbortSignal | undefined;
}

export interface PipelineOptions extends PrepareOptions, LoadOptions {}

export interface GenerateOptions {
  /** Name of the job, for `cancel` and in events. Default: a random UUID. */
  id?: string | undefined;
  /** Cancels the job, also while it waits for others. */
  signal?: AbortSignal | undefined;
  /** Gets the job's events in order and is awaited; where it fails, so does the job. */
  onEvent?: ((event: PipelineEvent) => void | Promise<void>) | undefined;
  /** False keeps no images for the result, for jobs whose handler takes them. Default true. */
  keepImages?: boolean | undefined;
  /**
   * Steps between `preview` events, 1 and up; 0, the default, for none, which costs nothing. A
   * preview copies the latent from the device once, 256 KB per image at 1024x1024; with a TAESD it
   * is decoded on the first rank, at a twentieth of the VAE's cost.
   */
  previewSteps?: number | undefined;
}

/** How sessions are opened; tests bring one that only takes notes. */
export interface PipelineDependencies extends PrepareDependencies {
  openSession(options: OpenOptions): Promise<JobSession>;
  checkSession(options: OpenOptions, besideBytes: number): Promise<number>;
}

export class Pipeline {
  private readonly queue = new JobQueue();
  private readonly jobs = new Map<string, AbortController>();
  private closing: Promise<void> | null = null;

  private constructor(
    private readonly prepared: PreparedPipeline,
    private readonly session: JobSession,
    /** The same with a refiner. */
    private readonly both: RefinedSessions | null,
    /** What was ignored in the model's files; part of each job's warnings. */
    readonly warnings: readonly string[],
    /** How weights are kept that the model's files have in 8 bits: a line per network. */
    readonly weightNotes: readonly string[],
  ) {}

  /**
   * Loads the model. Rejects with `BasedXLError`: "bad-option", "bad-model", "no-device" and
   * "no-memory" before weights load, then "bad-weights", "gpu-failed", "cancelled".
   */
  static async open(
    options: PipelineOptions = {},
    dependencies: PipelineDependencies = defaultDependencies,
  ): Promise<Pipeline> {
    const prepared = await preparePipeline(options, dependencies);
    return await Pipeline.load(prepared, options, dependencies);
  }

  /** The second half of `open`, for callers that look at the plan before weights load. */
  static async load(
    prepared: PreparedPipeline,
    { onProgress, signal }: LoadOptions = {},
    dependencies: Omit<PipelineDependencies, "probeDevice"> = defaultDependencies,
  ): Promise<Pipeline> {
    const warnings: string[] = [];
    const weightNotes: string[] = [];
    const add = (list: string[], sentence: string) => {
      if (!list.includes(sentence)) list.push(sentence);
    };
    const notes = {
      onWarning: (warning: string) => add(warnings, warning),
      onWeightNote: (note: string) => add(weightNotes, note),
    };
    const openingOf = (of: PreparedPipeline): Opening => {
      const options = { ...openOptionsOf(of), ...notes };
      return {
        // NCCL's devices are opened by all processes, once.
        check: async (bytes, { signal }) =>
          options.gpu?.localRanks
            ? 0
            : await dependencies.checkSession({ ...options, signal }, bytes),
        open: (hooks) => dependencies.openSession({ ...options, ...hooks }),
      };
    };
    const { refiner, plan } = prepared;
    const first = openingOf(prepared);
    if (refiner === null || plan.refined === null) {
      const session = await first.open({ onProgress, signal });
      return new Pipeline(prepared, session, null, warnings, weightNotes);
    }
    const second = openingOf(refinerOf(prepared, refiner, plan.refined));
    const onTurns = () =>
      add(
        warnings,
        `${prepared.naming("refiner")}: the two models do not fit into memory together, so each \
is loaded when its turn comes.`,
      );
    // Processes cannot take turns: they would have to agree on each.
    const isAlone = prepared.devices.gpu?.localRanks === undefined;
    const both = new TwoSessions([first, second], isAlone ? onTurns : null);
    await both.open({ onProgress, signal });
    return new Pipeline(prepared, both, both, warnings, weightNotes);
  }

  /**
   * Fills in and checks a request, as `generate` does; throws what it rejects with at once.
   * `read` are the images that it names, as `readImages` gives them.
   */
  static plan(
    prepared: PreparedPipeline,
    request: GenerateRequest,
    read: ReadImages = noImages,
  ): PlannedRequest {
    return planImages(request, prepared, read);
  }

  get model(): Model {
    return this.prepared.model;
  }

  /** Ranks of all processes. */
  get rankCount(): number {
    return this.prepared.rankCount;
  }

  /**
   * Generates images. Jobs run one at a time in the order of the calls. Rejects with
   * `BasedXLError`: "bad-option" at once for a wrong request, "cancelled" soon after `signal`,
   * `cancel` or `close`, "no-memory", "not-finite", "rank-failed", "gpu-failed"; or with what
   * `onEvent` threw. The job has ended when the promise settles. After an error whose
   * `sessionLost` is true no other job can run: close the pipeline and open a new one.
   */
  async generate(
    request: GenerateRequest | PlannedRequest,
    options: GenerateOptions = {},
  ): Promise<GenerateResult> {
    if (this.closing !== null) throw closedError();
    const { id = crypto.randomUUID(), keepImages = true, onEvent = () => {} } = options;
    const { previewSteps = 0 } = options;
    if (!Number.isInteger(previewSteps) || previewSteps < 0 || previewSteps > stepCountMax) {
      throw new BasedXLError(
        "bad-option",
        `previewSteps must be a whole number from 0 to ${stepCountMax}, not ${previewSteps}.`,
      );
    }
    if (this.jobs.has(id)) {
      throw new BasedXLError("bad-option", `There is a job with the id ${id} already.`);
    }
    const planned = this.planOf(request);
    const controller = new AbortController();
    const signal = options.signal
      ? AbortSignal.any([options.signal, controller.signal])
      : controller.signal;
    this.jobs.set(id, controller);
    try {
      const { prepared, warnings } = this;
      const job = { id, prepared, warnings, keepImages, signal, onEvent, previewSteps };
      const running = this.queue.run(signal, async () => {
        const plan = await planned;
        if (this.both === null || !isRefined(plan)) return await runJob(this.session, plan, job);
        return await runRefinedJob(this.both, plan, job);
      });
      running.catch(() => {});
      // A wrong request is refused at once, not when its turn comes.
      await planned;
      return await running;
    } finally {
      this.jobs.delete(id);
    }
  }

  /**
   * Enlarges an image by an upscaler of ESRGAN's kind, which is loaded beside the model and kept
   * while memory lasts. Waits for its turn among the jobs. Rejects as `generate` does.
   */
  async upscale(image: ImageSource, options: UpscaleOptions): Promise<UpscaledImage> {
    if (this.closing !== null) throw closedError();
    const { upscaler, ...others } = options;
    const network = this.upscaler(upscaler);
    return await this.queue.run(options.signal, () =>
      upscaleImage(this.session, image, network, others),
    );
  }

  /** The upscaler that `name` names. Throws "bad-model" and "bad-weights". */
  upscaler(name: string): UpscalerNetwork {
    return upscalerOf(name, this.prepared.files);
  }

  /** Cancels the job of this id, running or waiting. False where there is none. */
  cancel(id: string): boolean {
    const controller = this.jobs.get(id);
    controller?.abort();
    return controller !== undefined;
  }

  /**
   * Cancels every job, waits for the one that runs, and frees the session's memory. It never
   * blocks the event loop; later calls give the same promise.
   */
  close(): Promise<void> {
    this.closing ??= (async () => {
      for (const id of this.jobs.keys()) this.cancel(id);
      await this.queue.run(undefined, async () => await this.session.close());
    })();
    return this.closing;
  }

  /** `await using pipeline = await Pipeline.open(...)` closes it at the end of the block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  // --- internal ---

  /** The first request was planned before the model was loaded. */
  private planOf(
    asked: GenerateRequest | PlannedRequest,
  ): PlannedRequest | Promise<PlannedRequest> {
    const { request, plan } = this.prepared;
    if (asked === request) return plan;
    if ("batches" in asked) return asked;
    const { image, controlnet, ipAdapter } = asked;
    const needsFiles = [image, controlnet, ipAdapter].some((value) => value !== undefined);
    if (!needsFiles) return Pipeline.plan(this.prepared, asked);
    const read = readImages(asked, this.prepared);
    return read.then((images) => Pipeline.plan(this.prepared, asked, images));
  }
}

// --- internal ---

const defaultDependencies: PipelineDependencies = { openSession, checkSession, probeDevice };

/** The refiner's part, as a pipeline of its own. */
function refinerOf(
  prepared: PreparedPipeline,
  model: Model,
  plan: PlannedRequest,
): PreparedPipeline {
  const { gpu } = prepared.devices;
  const { localRanks } = gpu ?? {};
  if (!gpu || !localRanks?.refinerNcclUniqueId) return { ...prepared, model, plan };
  const own = { ...localRanks, ncclUniqueId: localRanks.refinerNcclUniqueId };
  const devices = { ...prepared.devices, gpu: { ...gpu, localRanks: own } };
  return { ...prepared, model, plan, devices };
}

function isRefined(plan: PlannedRequest): plan is PlannedRequest & { refined: PlannedRequest } {
  return plan.refined !== null;
}

function closedError(): BasedXLError {
  const error = cancelled("The pipeline is closed: open a new one.");
  error.sessionLost = true;
  return error;
}
