/**
 * ComfyUI's /view: an image of a job, also smaller in bytes or without alpha.
 * Source: ComfyUI, server.py (view_image).
 */
import type { JobService } from "../../jobs/types.ts";
import { converted } from "../image-bytes.ts";

interface ViewedImage {
  bytes: Uint8Array;
  type: string;
}

/** null where no job has a file of this name. */
export async function viewImage(
  jobs: JobService,
  { filename, preview, channel }: Readonly<Record<string, string>>,
): Promise<ViewedImage | null> {
  const found = imageNamed(jobs, filename ?? "");
  if (found === null) return null;
  const bytes = await jobs.imageBytes(found.jobId, found.index);
  if (preview !== undefined) {
    const [name, quality = "90"] = preview.split(";");
    const format = name === "jpeg" ? "jpeg" : "webp";
    const number = /^\d{1,3}$/.test(quality) ? Math.min(100, Math.max(1, Number(quality))) : 90;
    return { bytes: await converted(bytes, { format, quality: number }), type: `image/${format}` };
  }
  if (channel === "rgb") {
    return { bytes: await converted(bytes, { format: "png" }), type: "image/png" };
  }
  return { bytes, type: found.type };
}

// --- internal ---

/** Jobs behind these are looked up by the own API alone. */
const jobsMax = 1000;

function imageNamed(jobs: JobService, filename: string) {
  if (filename === "") return null;
  for (const { id: jobId, images } of jobs.list({ limit: jobsMax })) {
    const image = images.find(({ file }) => file === filename);
    if (image !== undefined) return { jobId, ...image };
  }
  return null;
}
