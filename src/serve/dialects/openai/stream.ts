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

/** How a job ends that was stopped. */
export const cancelledJob = { code: "cancelled", message: "The request was cancelled." };

/** Ends with the job, or with `signal`. */
export async function* streamedImages(
  jobs: JobService,
  job: JobView,
  request: ImagesRequest,
  signal: AbortSignal,
): AsyncIterable<StreamEvent> {
  const partials = new Map<number, number>();
  for await (const event of jobs.events(job.id, 0, signal)) {
    if (event.type === "preview") {
      const number = partials.get(event.index) ?? 0;
      if (number >= request.asked.partialImages) continue;
      partials.set(event.index, number + 1);
      yield await partialImage(event, number, request);
    } else if (event.type === "image") {
      const bytes = await jobs.imageBytes(job.id, event.index);
      yield completedImage(event, bytes, request);
    } else if (event.type === "failed") yield errorEvent(errorOfJob(event));
    else if (event.type === "cancelled") yield errorEvent(errorOfJob(cancelledJob));
  }
}

// --- internal ---

async function partialImage(
  event: Extract<JobEvent, { type: "preview" }>,
  number: number,
  { asked, width, height }: ImagesRequest,
): Promise<StreamEvent> {
  const format = asked.outputFormat;
  const bytes = await converted(event.data, { format, width, height });
  const type = "image_generation.partial_image";
  return {
    event: type,
    data: {
      type,
      b64_json: Buffer.from(bytes).toString("base64"),
      partial_image_index: number,
      created_at: seconds(event.at),
      ...describedImage(asked, { width, height }),
    },
  };
}

function completedImage(
  event: Extract<JobEvent, { type: "image" }>,
  bytes: Uint8Array,
  { asked }: ImagesRequest,
): StreamEvent {
  const type = "image_generation.completed";
  return {
    event: type,
    data: {
      type,
      b64_json: Buffer.from(bytes).toString("base64"),
      created_at: seconds(event.at),
      ...describedImage(asked, event),
      usage,
    },
  };
}

function errorEvent(error: OpenAiError): StreamEvent {
  return { event: "error", data: { type: "error", ...errorBody(error) } };
}
