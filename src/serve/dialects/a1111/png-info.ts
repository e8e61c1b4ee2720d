/**
 * A1111's png-info: what an image says of itself.
 * Source: A1111 and Forge, modules/api/api.py (pnginfoapi), infotext_utils.py.
 */
import { BasedXLError } from "../../../errors.ts";
import { parseInfotext } from "../../../metadata/infotext.ts";
import { textsInBytes } from "../../../metadata.ts";
import { unreadableImage } from "./errors.ts";

/** Throws `A1111Error` for what is no image. */
export function imageInfo(bytes: Uint8Array) {
  const { texts, parameters: info = "" } = read(bytes);
  const items = [...texts].filter(([name]) => name !== "parameters");
  return { info, items: Object.fromEntries(items), parameters: fieldsOf(info) };
}

// --- internal ---

function read(bytes: Uint8Array): ReturnType<typeof textsInBytes> {
  try {
    return textsInBytes(bytes);
  } catch (error) {
    if (error instanceof BasedXLError) throw unreadableImage();
    throw error;
  }
}

function fieldsOf(info: string): Readonly<Record<string, string>> {
  if (info === "") return {};
  const { prompt, negativePrompt, fields } = parseInfotext(info);
  const sizes = fields.flatMap(([name, value]) => {
    const [, width, height] = /^(\d+)x(\d+)$/.exec(value) ?? [];
    const isSize = width !== undefined && height !== undefined;
    return isSize
      ? [
          [`${name}-1`, width],
          [`${name}-2`, height],
        ]
      : [[name, value]];
  });
  return { Prompt: prompt, "Negative prompt": negativePrompt, ...Object.fromEntries(sizes) };
}
