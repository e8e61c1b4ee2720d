/**
 * What an image says that was enlarged afterwards: what it said before, and how.
 */
import type { ImageTexts } from "../image/exif.ts";
import { parseForeign } from "./foreign-json.ts";
import { isInfotext } from "./infotext.ts";
import { textsAt } from "./read.ts";

interface Enlarging {
  /** Of the upscaler. */
  name: string;
  factor: number;
}

/** The texts of the image at `path`, as A1111 and this program add to them. */
export function textsOfEnlarged(path: string, { name, factor }: Enlarging): ImageTexts {
  const { parameters, own } = textsAt(path);
  const added = `Postprocess upscale by: ${factor}, Postprocess upscaler: ${JSON.stringify(name)}`;
  const separator = parameters !== undefined && isInfotext(parameters) ? ", " : "\n";
  const json = own === undefined ? null : parseForeign(own);
  const before = Array.isArray(json?.enlarged) ? json.enlarged : [];
  return {
    parameters: parameters ? `${parameters}${separator}${added}` : added,
    ...(json !== null && {
      own: JSON.stringify({ ...json, enlarged: [...before, { upscaler: name, factor }] }),
    }),
  };
}
