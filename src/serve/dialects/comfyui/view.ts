/**
 * ComfyUI's /view: an image, also smaller in bytes or without alpha.
 * Source: ComfyUI, server.py (view_image).
 */
import { converted, typeOfImage } from "../image-bytes.ts";
import type { Images } from "./images.ts";

interface ViewedImage {
  bytes: Uint8Array;
  type: string;
}

/** null where there is no such image. */
export async function viewImage(
  images: Images,
  {
    filename = "",
    subfolder = "",
    type = "output",
    preview,
    channel,
  }: Readonly<Record<string, string>>,
): Promise<ViewedImage | null> {
  const bytes = await images.read({ filename, subfolder, type });
  if (bytes === null) return null;
  if (preview !== undefined) {
    const [name, quality = "90"] = preview.split(";");
    const format = name === "jpeg" ? "jpeg" : "webp";
    const number = /^\d{1,3}$/.test(quality) ? Math.min(100, Math.max(1, Number(quality))) : 90;
    return { bytes: await converted(bytes, { format, quality: number }), type: `image/${format}` };
  }
  if (channel === "rgb") {
    return { bytes: await converted(bytes, { format: "png" }), type: "image/png" };
  }
  return { bytes, type: (await typeOfImage(bytes)) ?? "application/octet-stream" };
}
