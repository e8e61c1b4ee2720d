/**
 * ComfyUI's queue and history over the server's jobs. Prompts of other clients are shown, and only
 * one's own are stopped.
 * Source: ComfyUI, server.py and execution.py (PromptQueue).
 */
import { BasedXLError } from "../../../errors.ts";
import {
  isObject,
  type JsonObject,
  numberOf,
  textOf,
  wordsOf,
} from "../../../metadata/foreign-json.ts";
import {
  type InputImages,
  type JobService,
  type JobSpec,
  type JobView,
  QueueFull,
} from "../../jobs/types.ts";
import { headersOf } from "../../routes/errors.ts";
import type { Upscaling } from "../../upscaling.ts";
import { ClientIds } from "../client-ids.ts";
import { comfyError, type NodeErrors, PromptRefused } from "./errors.ts";
import { historyOf, isHistory, queueItem } from "./history.ts";
import type { Images } from "./images.ts";
import type { NodeLists } from "./input-types.ts";
import { type ComfyData, comfyDataOf, promptIdOf } from "./job-data.ts";
import { translatePrompt } from "./translate.ts";
import { refOf } from "./uploads.ts";
import { validatePrompt } from "./validate.ts";

export class PromptQueue {
  private number = 0;
  private readonly ids: ClientIds;
  /** Jobs that a client took out of its history. */
  private readonly forgotten = new Set<string>();

  constructor(
    private readonly jobs: JobService,
    private readonly images: Images,
    private readonly upscaling: Upscaling | null,
  ) {
    this.ids = new ClientIds(jobs, "comfyui", (data) => (data as ComfyData | undefined)?.promptId);
  }

  /** Rejects with `PromptRefused`. */
  async submit(body: JsonObject | null, client: string, lists: NodeLists) {
    if (body?.prompt === undefined) {
      const message = "No prompt provided";
      throw new PromptRefused(comfyError("no_prompt", message, message));
    }
    const targets = body.partial_execution_targets;
    const wanted = Array.isArray(targets) ? targets.map(wordsOf) : undefined;
    const valid = validatePrompt(body.prompt, lists, wanted);
    const { request, model, vae, refiner, images, nodeErrors, work } = await translatePrompt(
      ...([valid.prompt, valid.outputs, lists] as const),
      { read: (name) => this.images.read(refOf(name)), upscaling: this.upscaling },
    );
    const number = this.numberFor(body);
    const promptId = idText(body.prompt_id);
    const clientId = textOf(body.client_id);
    const extraData = {
      ...(isObject(body.extra_data) && body.extra_data),
      ...(clientId !== undefined && { client_id: clientId.slice(0, 200) }),
    };
    const dialectData: ComfyData = {
      ...(promptId !== undefined && { promptId }),
      ...{ number, extraData, ...work },
    };
    const spec = {
      ...{ request, model, vae, refiner, client, dialect: "comfyui" as const, dialectData },
      priority: number < 0 ? 1 : 0,
      previewSteps: clientId === undefined ? 0 : 1,
      format: "png" as const,
    };
    const job = await this.submitted(spec, images);
    this.ids.add(job);
    return answer(promptIdOf(job, dialectData), number, { ...valid.nodeErrors, ...nodeErrors });
  }

  /** GET /queue. */
  items() {
    const items = (state: JobView["state"]) =>
      this.own({ state })
        .reverse()
        .map((job) => queueItem(job, comfyDataOf(job)!));
    return { queue_running: items("running"), queue_pending: items("queued") };
  }

  /** POST /queue. */
  change({ clear, delete: ids }: JsonObject, client: string): void {
    if (clear) for (const { id } of this.own({ state: "queued", client })) this.jobs.cancel(id);
    for (const id of Array.isArray(ids) ? ids : []) {
      const job = this.ids.job(wordsOf(id));
      if (job?.state === "queued" && job.spec.client === client) this.jobs.cancel(job.id);
    }
  }

  /** Of one prompt where the body names it, else of all that run. */
  interrupt({ prompt_id: id }: JsonObject, client: string): void {
    const wanted = id ? this.ids.job(wordsOf(id))?.id : undefined;
    for (const job of this.own({ state: "running", client })) {
      if (!id || job.id === wanted) this.jobs.cancel(job.id);
    }
  }

  history({ max_items, offset }: Readonly<Record<string, string>>) {
    const ended = this.own({ limit: historyMax }).filter((job) => this.isShown(job));
    const oldestFirst = ended.reverse();
    const count = numberOf(max_items) ?? historyMax;
    const given = numberOf(offset) ?? -1;
    const from = given >= 0 ? given : Math.max(0, oldestFirst.length - count);
    return historyOf(oldestFirst.slice(from, from + Math.max(0, count)));
  }

  historyOf(id: string) {
    const job = this.ids.job(id);
    return job !== null && this.isShown(job) ? historyOf([job]) : {};
  }

  /** POST /history: the jobs and their images stay. */
  forget({ clear, delete: ids }: JsonObject): void {
    const named = (Array.isArray(ids) ? ids : []).map((id) => this.ids.job(wordsOf(id)));
    const all = clear ? this.own({ limit: historyMax }) : [];
    for (const job of [...named, ...all]) if (job && isHistory(job)) this.forgotten.add(job.id);
  }

  // --- internal ---

  private isShown(job: JobView): boolean {
    return isHistory(job) && !this.forgotten.has(job.id);
  }

  /** The newest first. */
  private own(filter: Parameters<JobService["list"]>[0]): JobView[] {
    return this.jobs.list(filter).filter((job) => comfyDataOf(job) !== null);
  }

  private numberFor({ number, front }: JsonObject): number {
    const given = numberOf(number);
    if (given !== undefined) return given;
    const next = this.number++;
    return front ? -next : next;
  }

  private async submitted(spec: JobSpec, images: InputImages | null): Promise<JobView> {
    try {
      return await this.jobs.submit(spec, images);
    } catch (error) {
      if (error instanceof QueueFull) {
        const found = comfyError("queue_full", error.message);
        throw new PromptRefused(found, {}, 429, headersOf(error));
      }
      if (!(error instanceof BasedXLError)) throw error;
      const message = "Prompt outputs failed validation";
      throw new PromptRefused(comfyError("invalid_prompt", message, error.message));
    }
  }
}

// --- internal ---

/** As ComfyUI keeps. */
const historyMax = 10_000;

function answer(promptId: string, number: number, nodeErrors: NodeErrors) {
  return { prompt_id: promptId, number, node_errors: nodeErrors };
}

function idText(value: unknown): string | undefined {
  const isId = typeof value === "string" || typeof value === "number";
  return isId && String(value) !== "" ? String(value).slice(0, 200) : undefined;
}
