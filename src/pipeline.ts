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
 * In reading order: `request.ts` (what is asked, defaults and checks, batches), `layout.ts` (how
 * ranks share it), `prompts.ts`, `queue.ts`, `job.ts` (batches through a session), `session.ts`
 * (one batch through the native library), `events.ts`.
 */
import { type ChosenDevices, chooseDevice, type DeviceOptions, deviceDefaults } from "./devices.ts";
import { BasedXLError, cancelled } from "./errors.ts";
import { type ModelFolder, openModelFolder } from "./models/folder.ts";
import { resolveModelPath } from "./models/locate.ts";
import { stepCountMax } from "./native/abi.ts";
import { probeDevice } from "./native/device-info.ts";
import { emulatorPath, prepareDevice } from "./native/library.ts";
import type { PipelineEvent } from "./pipeline/events.ts";
import { type GenerateResult, type JobSession, runJob } from "./pipeline/job.ts";
import { JobQueue } from "./pipeline/queue.ts";
import { type GenerateRequest, type PlannedRequest, planRequest } from "./pipeline/request.ts";
import { type OpenOptions, openSession, type Progress } from "./pipeline/session.ts";
import type { Naming } from "./settings/values.ts";

export { BasedXLError, type ErrorCode } from "./errors.ts";
export type {
  GeneratedImage,
  ImageEvent,
  ImageRange,
  JobProgress,
  PipelineEvent,
  PreviewEvent,
  ProgressEvent,
  StartEvent,
  WarningEvent,
} from "./pipeline/events.ts";
export type { GenerateResult } from "./pipeline/job.ts";
export type { GenerateRequest, PlannedRequest } from "./pipeline/request.ts";
export type { Progress } from "./pipeline/session.ts";
export type { StageTimings } from "./pipeline/timings.ts";

export interface PipelineOptions {
  /**
   * A folder in diffusers' layout, or one that `openModelFolder` opened. Default: the variable
   * BASEDXL_MODEL, else the bundled mini-sdxl.
   */
  model?: string | ModelFolder | undefined;
  /**
   * Where ranks run. Default: one rank, on a GPU where there is one; see `devices.ts`. The command
   * passes what it has chosen itself.
   */
  devices?: Partial<DeviceOptions> | ChosenDevices | undefined;
  /** CPU threads of all ranks together; 0, the default, is one per core. */
  threadCount?: number | undefined;
  /**
   * What will be asked for first: if it cannot fit in memory, or be shared by so many ranks, it is
   * refused before weights load. Default: one image of the model's own size.
   */
  first?: GenerateRequest | PlannedRequest | undefined;
  /** How messages name a setting; default: as the request's property. */
  naming?: Naming | undefined;
  /** Called while weights load, and awaited; where it fails, loading stops and `open` rejects. */
  onProgress?: ((progress: Progress) => void | Promise<void>) | undefined;
  /** Stops loading: `open` rejects with "cancelled". */
  signal?: AbortSignal | undefined;
}

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
   * preview copies the latent from the device once, 256 KB per image at 1024x1024.
   */
  previewSteps?: number | undefined;
}

/** How sessions are opened; tests bring one that only takes notes. */
export interface PipelineDependencies {
  openSession(options: OpenOptions): Promise<JobSession>;
}

export class Pipeline {
  private readonly queue = new JobQueue();
  private readonly jobs = new Map<string, AbortController>();
  private closing: Promise<void> | null = null;

  private constructor(
    readonly model: ModelFolder,
    /** Ranks of all processes. */
    readonly rankCount: number,
    /** What was ignored in the model's files; part of each job's warnings. */
    readonly warnings: readonly string[],
    private readonly session: JobSession,
    private readonly first: { request: GenerateRequest | PlannedRequest; plan: PlannedRequest },
    private readonly naming: Naming | undefined,
  ) {}

  /**
   * Loads the model. Rejects with `BasedXLError`: "bad-option", "bad-model", "no-device" and
   * "no-memory" before weights load, then "bad-weights", "gpu-failed", "cancelled".
   */
  static async open(
    options: PipelineOptions = {},
    dependencies: PipelineDependencies = { openSession },
  ): Promise<Pipeline> {
    const model = await modelOf(options.model);
    const devices = await devicesOf(options.devices ?? {});
    const { rankCount, gpu, dtype } = devices;
    const { first: request = { prompt: "" }, naming } = options;
    const plan = isPlanned(request) ? request : planRequest(request, model, rankCount, naming);
    const [batch] = plan.batches;
    const { width, height, splitBatch, vaeTiling } = plan.settings;
    const warnings: string[] = [];
    const session = await dependencies.openSession({
      model,
      rankCount,
      threadCount: options.threadCount ?? 0,
      gpu,
      dtype,
      width,
      height,
      splitBatch,
      vaeTiling,
      guidance: batch?.guidance ?? false,
      imageCount: Math.max(...plan.batches.map(({ images }) => images.length)),
      onProgress: options.onProgress,
      onWarning: (warning) => void warnings.push(warning),
      signal: options.signal,
    });
    return new Pipeline(model, rankCount, warnings, session, { request, plan }, naming);
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
    const plan = this.planOf(request);
    const controller = new AbortController();
    const signal = options.signal
      ? AbortSignal.any([options.signal, controller.signal])
      : controller.signal;
    this.jobs.set(id, controller);
    try {
      const { model, warnings } = this;
      const job = { id, model, warnings, keepImages, signal, onEvent, previewSteps };
      return await this.queue.run(signal, () => runJob(this.session, plan, job));
    } finally {
      this.jobs.delete(id);
    }
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

  /** The first request was planned when the pipeline was opened. */
  private planOf(request: GenerateRequest | PlannedRequest): PlannedRequest {
    if (request === this.first.request) return this.first.plan;
    if (isPlanned(request)) return request;
    return planRequest(request, this.model, this.rankCount, this.naming);
  }
}

// --- internal ---

async function modelOf(model: PipelineOptions["model"]): Promise<ModelFolder> {
  if (typeof model === "object") return model;
  return await openModelFolder(resolveModelPath(model, process.env).path);
}

async function devicesOf(devices: Partial<DeviceOptions> | ChosenDevices): Promise<ChosenDevices> {
  if (isChosen(devices)) return devices;
  await prepareDevice(devices.device, () => {});
  return chooseDevice({ ...deviceDefaults, ...devices }, probeDevice(), emulatorPath);
}

function isPlanned(request: GenerateRequest | PlannedRequest): request is PlannedRequest {
  return "batches" in request;
}

function isChosen(devices: Partial<DeviceOptions> | ChosenDevices): devices is ChosenDevices {
  return "gpu" in devices;
}

function closedError(): BasedXLError {
  const error = cancelled("The pipeline is closed: open a new one.");
  error.sessionLost = true;
  return error;
}
