/**
 * A job as the events that OpenAI's API streams: partial images, then each image when it is there.
 */
import type { JobEvent, JobService, JobView } from "../../jobs/types.ts";
import { converted } from "../image-bytes.ts";
import { describedImage, seconds, usage } from "./answers.ts";
import { errorBody, errorOfJob, type OpenAiError } from "./errors.ts";
import type { ImagesRequest } from "./request.ts";

interface StreamEvent {
  event: string;
  data: object;
}

/** How names of events begin. */
export type EventKind = "image_generation" | "image_edit";

/** How a job ends that was stopped. */
export const cancelledJob = { code: "cancelled", message: "The request was cancelled." };

/** Ends with the job, or with `signal`. */
export async function* streamedImages(
  jobs: JobService,
  job: JobView,
  request: ImagesRequest,
  kind: EventKind,
  signal: AbortSignal,
): AsyncIterable<StreamEvent> {
  const partials = new Map<number, number>();
  for await (const event of jobs.events(job.id, 0, signal)) {
    if (event.type === "preview") {
      const number = partials.get(event.index) ?? 0;
      if (number >= request.asked.partialImages) continue;
      partials.set(event.index, number + 1);
      yield await partialImage(event, number, request, kind);
    } else if (event.type === "image") {
      const bytes = await jobs.imageBytes(job.id, event.index);
      yield completedImage(event, bytes, request, kind);
    } else if (event.type === "failed") yield errorEvent(errorOfJob(event));
    else if (event.type === "cancelled") yield errorEvent(errorOfJob(cancelledJob));
  }
}

// --- internal ---

async function partialImage(
  { data, at }: Extract<JobEvent, { type: "preview" }>,
  number: number,
  { asked, width, height }: ImagesRequest,
  kind: EventKind,
): Promise<StreamEvent> {
  const format = asked.outputFormat;
  const bytes = await converted(data, { format, width, height });
  return imageEvent(`${kind}.partial_image`, bytes, at, {
    partial_image_index: number,
    ...describedImage(asked, { width, height }),
  });
}

function completedImage(
  event: Extract<JobEvent, { type: "image" }>,
  bytes: Uint8Array,
  { asked }: ImagesRequest,
  kind: EventKind,
): StreamEvent {
  return imageEvent(`${kind}.completed`, bytes, event.at, {
    ...describedImage(asked, event),
    usage,
  });
}

function imageEvent(type: string, bytes: Uint8Array, at: number, about: object): StreamEvent {
  const b64_json = Buffer.from(bytes).toString("base64");
  return { event: type, data: { type, b64_json, created_at: seconds(at), ...about } };
}

function errorEvent(error: OpenAiError): StreamEvent {
  return { event: "error", data: { type: "error", ...errorBody(error) } };
}
