/**
 * Images by ComfyUI's names: those of jobs, in "output" and "temp", and uploaded ones, in "input"
 * and "temp".
 * Source: ComfyUI, server.py (image_upload, upload_mask, view_image).
 */
import { isObject, parseForeign, textOf } from "../../../metadata/foreign-json.ts";
import type { JobService } from "../../jobs/types.ts";
import { typeOfImage } from "../image-bytes.ts";
import { withAlphaOf } from "../mask-bytes.ts";
import type { ImageRef, Uploads } from "./uploads.ts";

/** Why an upload was not taken, in a sentence. */
export class UploadRefused extends Error {}

export class Images {
  constructor(
    private readonly jobs: JobService,
    private readonly uploads: Uploads,
  ) {}

  /** null where there is none. */
  async read(ref: ImageRef): Promise<Uint8Array | null> {
    const found = ref.type === "input" ? null : await this.jobs.fileBytes(ref.filename);
    return found ?? (await this.uploads.read(ref));
  }

  /** POST /upload/image. Rejects with `UploadRefused`. */
  async upload(form: FormData | null) {
    const { bytes, ...upload } = await uploadOf(form);
    return await this.kept(upload, bytes);
  }

  /** POST /upload/mask: the image that the mask is of, with the mask's alpha. */
  async uploadMask(form: FormData | null) {
    const { bytes: mask, ...upload } = await uploadOf(form);
    const sent = form?.get("original_ref");
    const original = typeof sent === "string" ? parseForeign(sent) : null;
    const bytes = isObject(original) ? await this.read(refIn(original)) : null;
    if (bytes === null) throw new UploadRefused("original_ref names no image.");
    const masked = await withAlphaOf(bytes, mask);
    if (masked === null) throw new UploadRefused("The mask must have the size of its image.");
    return await this.kept(upload, masked);
  }

  // --- internal ---

  private async kept(
    { ref, overwrites }: { ref: ImageRef; overwrites: boolean },
    bytes: Uint8Array,
  ) {
    const kept = await this.uploads.add(ref, bytes, overwrites);
    if (kept === null) throw new UploadRefused("The name of the image cannot be used here.");
    return { name: kept.filename, subfolder: kept.subfolder, type: kept.type };
  }
}

// --- internal ---

async function uploadOf(form: FormData | null) {
  const image = form?.get("image");
  if (!form || !(image instanceof Blob) || image.name === "") {
    throw new UploadRefused("The form has no file in the part image.");
  }
  const bytes = await image.bytes();
  if ((await typeOfImage(bytes)) === null) {
    throw new UploadRefused("The file cannot be read as an image, or has too many pixels.");
  }
  const text = (name: string, otherwise: string) => {
    const part = form.get(name);
    return typeof part === "string" ? part : otherwise;
  };
  const ref = {
    filename: image.name,
    subfolder: text("subfolder", ""),
    type: text("type", "input"),
  };
  return { bytes, ref, overwrites: ["true", "1"].includes(text("overwrite", "")) };
}

function refIn({ filename, subfolder, type }: Readonly<Record<string, unknown>>): ImageRef {
  const ref = { filename: textOf(filename) ?? "", subfolder: textOf(subfolder) ?? "" };
  return { ...ref, type: textOf(type) ?? "output" };
}
