/**
 * JSON of the server's own API as the page reads it: the server's types, but for what JSON changes.
 */
import type * as v from "valibot";
import type { Capabilities } from "../../../capabilities.ts";
import type { JobSpec, JobView, JobEvent as ServerEvent } from "../../../jobs/types.ts";

import type { galleryImageSchema, metadataSchema } from "../../../schemas.ts";

export type { Capabilities };
export type ListedModel = Capabilities["models"][number];
/** A row of the table of settings. */
export type ListedSetting = Capabilities["settings"][number];

/** Settings by the names of requests, such as `num_inference_steps`; large seeds are texts. */
export type Settings = Record<string, unknown>;

export interface LoraSetting {
  file: string;
  scale?: number;
  text_scale?: number;
}

/** What the page asks for. */
export interface JobRequest {
  request: Settings;
  model?: string | undefined;
  vae?: string | undefined;
  /** The model that finishes the images. */
  refiner?: string | undefined;
  preview_steps?: number | undefined;
  /** In base64. */
  image?: string | undefined;
  /** White is generated anew. */
  mask?: string | undefined;
  /** Hints of ControlNets. */
  control_images?: string[] | undefined;
  /** What an IP-Adapter sees. */
  ip_images?: string[] | undefined;
}

export type Job = Omit<JobView, "spec"> & {
  spec: Omit<JobSpec, "request"> & { request: Settings };
};

type Preview = Extract<ServerEvent, { type: "preview" }>;

/** A preview's bytes are in base64. */
export type JobEvent =
  | Exclude<ServerEvent, { type: "preview" }>
  | (Omit<Preview, "data"> & { data: string });

export type GalleryImage = v.InferOutput<typeof galleryImageSchema>;

/** What an image says about how it was made. */
export type ImageSettings = v.InferOutput<typeof metadataSchema>;
/** Rows in pixels, and the ranks that compute them: one for each guidance branch. */
export type RankRows = NonNullable<ImageSettings["rows"]>[number];
