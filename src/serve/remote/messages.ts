/**
 * What servers and workers say to each other through Redis. A queue of BullMQ has the jobs of one
 * model; its name includes what the model's files are, so that no worker takes a job for another
 * model of the same name.
 */
import { createHash } from "node:crypto";
import { statSync } from "node:fs";
import { basename } from "node:path";
import type { CatalogModel } from "../catalog-model.ts";
import type { InputFiles } from "../input-files.ts";
import type { JobError, JobHappening, JobImage, JobState } from "../jobs/types.ts";

/** A job as a worker gets it. */
export interface JobData {
  /** JSON of a `JobSpec` with its format. */
  spec: string;
  createdAt: number;
  /** Images that the server has. */
  images: JobImage[];
  /** Files that the job starts from, base64. */
  inputs: InputFiles<string> | null;
}

/** What the worker says of a job while it runs; images of previews are base64. */
export type Report =
  | { type: "image"; image: JobImage }
  | (Exclude<JobHappening, { type: "image" | "preview" }> & { data?: undefined })
  | { type: "preview"; index: number; step: number; type_: "image/jpeg"; data: string };

/** What became of a job. */
export interface Outcome {
  state: Exclude<JobState, "queued" | "running">;
  /** All that are written, also those of earlier attempts. */
  images: JobImage[];
  warnings: string[];
  error: JobError | null;
}

/** What a worker says of itself, again and again. */
export interface Announcement {
  /** Names of the queues that it takes jobs from, by names of models. */
  models: Record<string, string>;
  /** Jobs that it runs at the same time. */
  places: number;
}

/** To all who listen: jobs were added, a job is cancelled, a worker came or went. */
export type Notice = { type: "added" } | { type: "cancel"; id: string } | { type: "workers" };

/** Of all keys. It changes with the messages. */
export const keyPrefix = "basedxl2";
export const noticeChannel = `${keyPrefix}:notices`;
export const workersKey = `${keyPrefix}:workers`;
export const workerKeyOf = (id: string) => `${keyPrefix}:worker:${id}`;

/** The same wherever the model has the same files. */
export function queueNameOf({ id, prepared }: CatalogModel): string {
  const { weights } = prepared.model;
  const files = Object.values(weights).flatMap(({ files }) => files);
  const sizes = [...new Set(files)].map((path) => {
    return `${basename(path)} ${statSync(path, { throwIfNoEntry: false })?.size ?? 0}`;
  });
  const hash = createHash("sha256").update(sizes.sort().join("\n")).digest("hex");
  return `${id.replaceAll(":", "_")}-${hash.slice(0, 12)}`;
}
