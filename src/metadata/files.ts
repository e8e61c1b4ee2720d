/**
 * Images with their parameters for programs: written as the command writes them, and read as its
 * --from-image reads them.
 */
import { deviceDefaults } from "../devices.ts";
import type { ImageFormat } from "../image/encoder.ts";
import { encodeFile, type ImageTexts, writeImage as writeFile } from "../image.ts";
import type { GeneratedImage, GenerateRequest, PipelineOptions } from "../pipeline.ts";
import { requestKeys, settingKeys, settings } from "../settings/table.ts";
import { textsOfImage } from "./describe.ts";
import { startHashing } from "./hashes.ts";
import { recallImage } from "./recall.ts";

export interface DescribeOptions {
  /** How long to wait for the hashes of large models, which are kept. Default: 20 s. */
  hashWaitMs?: number | undefined;
  /** Rejects with "cancelled". */
  signal?: AbortSignal | undefined;
}

export interface ImageFileOptions extends DescribeOptions {
  /** Whether the file has the image's parameters, or other texts in their place. Default: true. */
  metadata?: boolean | ImageTexts | undefined;
}

/** What an image says of how it was made. */
export interface ImageMetadata {
  /** The program that wrote the image. */
  tool: string;
  /** For `Pipeline.open`: the model, where it is on this machine, and devices. */
  options: PipelineOptions;
  /** For `generate`: the same image again. */
  request: GenerateRequest;
  /** One sentence for each thing that cannot be repeated. */
  warnings: readonly string[];
}

/** Hashes of large models are left out where they take longer than this. */
export const defaultHashWaitMs = 20_000;

/** A1111's text and this program's JSON for an image, with hashes of the files that made it. */
export async function describeImage(
  image: GeneratedImage,
  { hashWaitMs = defaultHashWaitMs, signal = new AbortController().signal }: DescribeOptions = {},
): Promise<ImageTexts> {
  const { prepared, plan } = image.origin.parts();
  using hashes = startHashing({ ...prepared, plan });
  await hashes.settled(hashWaitMs, () => {}, signal);
  return textsOfImage(image, hashes);
}

/** The image as the bytes of a file. Long texts do not fit into every format: a JPEG has none. */
export async function encodeImage(
  image: GeneratedImage,
  { format = "png", ...options }: ImageFileOptions & { format?: ImageFormat | undefined } = {},
): Promise<Uint8Array> {
  const texts = await textsFor(image, options);
  return (await encodeFile(format, image, { texts })).bytes;
}

/**
 * Writes the image in the format that the ending of `path` names, the same file as the command's.
 * Resolves to whether the texts are in it. Throws "bad-option" for an ending or a size that there
 * is no format for, "io", "cancelled".
 */
export async function writeImage(
  path: string,
  image: GeneratedImage,
  options: ImageFileOptions = {},
): Promise<boolean> {
  const texts = await textsFor(image, options);
  const { pixels, width, height } = image;
  return await writeFile(path, pixels, width, height, { texts, signal: options.signal });
}

/**
 * What the image at `path` says, in options and a request of this program: its own, A1111's,
 * ComfyUI's, SwarmUI's or Fooocus'. Files are looked up by hash and by name in the folders of
 * models, and nothing is fetched. Throws "io" for what is no image, "bad-option" for an image that
 * says nothing.
 */
export async function readMetadata(
  path: string,
  { modelsDir }: Pick<PipelineOptions, "modelsDir"> = {},
): Promise<ImageMetadata> {
  const { tool, settings: found, warnings } = await recallImage(path, { modelsDir });
  const { seed, ...rest } = found;
  const values: Readonly<Record<string, unknown>> = rest;
  const pick = (keys: readonly string[]) =>
    Object.fromEntries(keys.filter((key) => key in values).map((key) => [key, values[key]]));
  const deviceKeys = Object.keys(deviceDefaults);
  const others = settingKeys.filter((key) => settings[key].scope === "pipeline");
  return {
    tool,
    options: {
      ...pick(others.filter((key) => !deviceKeys.includes(key))),
      ...(modelsDir !== undefined && { modelsDir }),
      devices: pick(deviceKeys),
    },
    request: { ...pick(requestKeys), ...(seed !== undefined && { seeds: [seed] }) },
    warnings,
  };
}

// --- internal ---

async function textsFor(
  image: GeneratedImage,
  { metadata = true, ...options }: ImageFileOptions,
): Promise<ImageTexts | undefined> {
  if (metadata === false) return undefined;
  return metadata === true ? await describeImage(image, options) : metadata;
}
