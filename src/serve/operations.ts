/**
 * The operations of the own API, a row each, as the OpenAPI document lists them.
 */
import * as v from "valibot";
import {
  cancelSchema,
  galleryImageSchema,
  hintQuery,
  imagesQuery,
  jobFormSchema,
  jobListSchema,
  jobSchema,
  jobsQuery,
  loginSchema,
  metadataSchema,
  specSchema,
} from "./schemas.ts";

export interface Operation {
  method: "get" | "post" | "delete";
  /** As hono writes it. */
  path: string;
  summary: string;
  query?: v.GenericSchema;
  body?: v.GenericSchema | "bytes";
  /** A form of several parts in the place of `body`: parts in JSON, and files by what they are. */
  form?: {
    json: Readonly<Record<string, v.GenericSchema>>;
    files: Readonly<Record<string, string>>;
  };
  /** Default 200. */
  status?: number;
  /** In JSON. */
  answer?: v.GenericSchema;
  /** Type of MIME of others. */
  answerType?: string;
}

const statusSchema = v.object({ status: v.string() });
const readinessSchema = v.object({ status: v.string(), message: v.optional(v.string()) });

export const operations: readonly Operation[] = [
  {
    method: "post",
    path: "/api/v1/jobs",
    summary: "Adds a job. 429 with Retry-After where the queue is full.",
    body: specSchema,
    form: {
      json: { job: jobFormSchema },
      files: {
        image: "The image to start from.",
        mask: "White is made anew.",
        control_image: "A hint.",
        ip_image: "What an IP-Adapter sees.",
      },
    },
    status: 202,
    answer: jobSchema,
  },
  {
    method: "get",
    path: "/api/v1/jobs",
    summary: "Jobs, the newest first.",
    query: jobsQuery,
    answer: jobListSchema,
  },
  { method: "get", path: "/api/v1/jobs/:id", summary: "A job.", answer: jobSchema },
  {
    method: "delete",
    path: "/api/v1/jobs/:id",
    summary: "Cancels a job, within a step where it runs; images that are written stay.",
    answer: jobSchema,
  },
  {
    method: "get",
    path: "/api/v1/jobs/:id/events",
    summary:
      "Server-sent events of a job from its first on, or after Last-Event-ID: queued, start, " +
      "progress, preview, image, warning, then done, failed or cancelled.",
    answerType: "text/event-stream",
  },
  {
    method: "get",
    path: "/api/v1/jobs/:id/images/:index",
    summary: "The bytes of an image of a job.",
    answerType: "image/*",
  },
  {
    method: "get",
    path: "/api/v1/events",
    summary: "Server-sent events of all jobs from now on, or after Last-Event-ID.",
    answerType: "text/event-stream",
  },
  {
    method: "post",
    path: "/api/v1/cancel",
    summary: "Cancels several jobs.",
    body: cancelSchema,
    answer: v.object({ cancelled: v.number() }),
  },
  {
    method: "get",
    path: "/api/v1/images",
    summary: "Images in the folder of outputs, the newest first.",
    query: imagesQuery,
    answer: v.object({ images: v.array(galleryImageSchema) }),
  },
  {
    method: "get",
    path: "/api/v1/images/:name",
    summary: "The bytes of an image.",
    answerType: "image/*",
  },
  {
    method: "get",
    path: "/api/v1/images/:name/thumbnail",
    summary: "A small version of an image.",
    answerType: "image/webp",
  },
  {
    method: "get",
    path: "/api/v1/images/:name/metadata",
    summary: "What an image says of how it was made.",
    answer: metadataSchema,
  },
  { method: "delete", path: "/api/v1/images/:name", summary: "Deletes an image.", status: 204 },
  {
    method: "post",
    path: "/api/v1/metadata",
    summary: "The same of the image in the body, of this program or another; it is not kept.",
    body: "bytes",
    answer: metadataSchema,
  },
  {
    method: "post",
    path: "/api/v1/hints",
    summary: "The image in the body as the hint that a ControlNet would be given.",
    query: hintQuery,
    body: "bytes",
    answerType: "image/png",
  },
  {
    method: "get",
    path: "/api/v1/capabilities",
    summary: "Models, LoRAs, samplers, settings with their ranges, features; with an ETag.",
    answer: v.record(v.string(), v.unknown()),
  },
  {
    method: "post",
    path: "/api/v1/refresh",
    summary: "Looks at the folders of models again.",
    answer: statusSchema,
  },
  {
    method: "post",
    path: "/api/v1/login",
    summary: "Sets a cookie that stands for the key, for browsers.",
    body: loginSchema,
    status: 204,
  },
  { method: "post", path: "/api/v1/logout", summary: "Removes the cookie.", status: 204 },
  { method: "get", path: "/health", summary: "Whether it answers.", answer: statusSchema },
  {
    method: "get",
    path: "/ready",
    summary: "Whether it takes jobs: 503 with the reason where it takes none.",
    answer: readinessSchema,
  },
  {
    method: "get",
    path: "/metrics",
    summary: "Counters and histograms for Prometheus.",
    answerType: "text/plain",
  },
];
