/**
 * Jobs as ComfyUI's /queue and /history show prompts.
 * Source: ComfyUI, execution.py (PromptQueue) and main.py (prompt_worker).
 */
import type { JobView } from "../../jobs/types.ts";
import { type ComfyData, comfyDataOf, promptIdOf } from "./job-data.ts";

/** number, prompt_id, prompt, extra_data, outputs_to_execute. */
type QueueItem = [number, string, ComfyData["prompt"], ComfyData["extraData"], string[]];

export function queueItem(job: JobView, data: ComfyData): QueueItem {
  return [data.number, promptIdOf(job, data), data.prompt, data.extraData, data.outputs];
}

/** Whether it is in the history: what was taken out of the queue before its turn is not. */
export function isHistory({ state, startedAt }: JobView): boolean {
  if (state === "cancelled") return startedAt !== null;
  return state === "done" || state === "failed";
}

/** Entries by prompt id, of jobs of this dialect that have ended. */
export function historyOf(jobs: readonly JobView[]) {
  const entries = jobs.flatMap((job) => {
    const data = comfyDataOf(job);
    return data === null || !isHistory(job) ? [] : [[promptIdOf(job, data), entryOf(job, data)]];
  });
  return Object.fromEntries(entries);
}

/** What each output node shows. */
export function outputOf(job: Pick<JobView, "images">, data: ComfyData, id: string) {
  const type = data.prompt[id]?.class_type === "PreviewImage" ? "temp" : "output";
  const images = job.images.map(({ file }) => ({ filename: file, subfolder: "", type }));
  return { images };
}

/** What broke the job off, as the message of a socket and of the history; null for none. */
export function failureOf(job: JobView, data: ComfyData, executed: readonly string[]) {
  const node = job.progress?.stage === "decode" ? data.decode : data.sampler;
  const where = {
    prompt_id: promptIdOf(job, data),
    node_id: node,
    node_type: data.prompt[node]?.class_type,
    executed,
  };
  if (job.state === "cancelled") return ["execution_interrupted", where] as const;
  if (job.state !== "failed") return null;
  const failure = {
    ...where,
    exception_message: job.error?.message ?? "",
    exception_type: job.error?.code ?? "internal",
    ...{ traceback: [], current_inputs: {}, current_outputs: [] },
  };
  return ["execution_error", failure] as const;
}

// --- internal ---

function entryOf(job: JobView, data: ComfyData) {
  const isDone = job.state === "done";
  const shown = isDone ? data.outputs : [];
  const meta = (id: string) => ({
    node_id: id,
    display_node: id,
    parent_node: null,
    real_node_id: id,
  });
  return {
    prompt: queueItem(job, data),
    outputs: Object.fromEntries(shown.map((id) => [id, outputOf(job, data, id)])),
    status: {
      status_str: isDone ? "success" : "error",
      completed: isDone,
      messages: messagesOf(job, data),
    },
    meta: Object.fromEntries(shown.map((id) => [id, meta(id)])),
  };
}

function messagesOf(job: JobView, data: ComfyData) {
  const prompt_id = promptIdOf(job, data);
  const start = { prompt_id, timestamp: job.startedAt ?? job.createdAt };
  const end = { timestamp: job.endedAt ?? job.createdAt };
  const failure = failureOf(job, data, []);
  return [
    ["execution_start", start],
    ["execution_cached", { nodes: [], ...start }],
    failure === null
      ? ["execution_success", { prompt_id, ...end }]
      : [failure[0], { ...failure[1], ...end }],
  ];
}
