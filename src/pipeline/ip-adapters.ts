/**
 * The IP-Adapters of a request: opened, with their image encoders, and their images read before the
 * request is planned; planned with its steps; their images made patches when its job runs.
 */
import { badOption } from "../errors.ts";
import { type HashedImage, type ImageSource, type RawImage, readHashed } from "../image/read.ts";
import type { Model } from "../models/model.ts";
import { ipImageCountMax } from "../native/abi.ts";
import { joined } from "../native/joined.ts";
import { clipPatches } from "../networks/clip-pixels.ts";
import { openIpAdapter } from "../networks/ip-adapter.ts";
import { encoderOf } from "../networks/ip-encoder.ts";
import type { IpAdapterUse } from "../networks/native.ts";
import type { ClipVisionNetwork, IpAdapterNetwork } from "../networks/network.ts";
import type { RequestSettings } from "../settings/table.ts";
import { checkSetting, type Naming } from "../settings/values.ts";
import { stepsWithin } from "./controls.ts";
import type { RequestFiles } from "./request-files.ts";

/** What a request says of them. */
export interface IpAdapterRequest
  extends Pick<RequestSettings, "ipAdapter" | "ipScale" | "ipStart" | "ipEnd" | "ipEncoder"> {
  ipImage?: readonly ImageSource[] | undefined;
}

/** A use of an adapter, read. */
export interface ReadIpAdapter {
  adapter: IpAdapterNetwork;
  encoder: ClipVisionNetwork;
  images: readonly RawImage[];
  /** SHA-256 of the pixels of each. */
  imageHashes: readonly string[];
  /** One per image. */
  scales: readonly number[];
  start: number;
  end: number;
}

/** A use with the steps that it takes part in. */
export interface PlannedIpAdapter extends ReadIpAdapter {
  stepFirst: number;
  stepEnd: number;
}

/** Rejects with "bad-option", "bad-model", "bad-weights", "io". */
export async function readIpAdapters(
  request: IpAdapterRequest,
  model: Model,
  files: Pick<RequestFiles, "find">,
  naming: Naming,
): Promise<ReadIpAdapter[]> {
  const names = checkSetting("ipAdapter", request.ipAdapter ?? [], naming);
  const counts = { adapters: names.length, images: request.ipImage?.length ?? 0 };
  checkCounts(request, counts, naming);
  if (names.length === 0) return [];
  const of = <T>(values: readonly T[], i: number): T | undefined => values[i] ?? values[0];
  const scales = checkSetting("ipScale", request.ipScale ?? [], naming);
  const starts = checkSetting("ipStart", request.ipStart ?? [], naming);
  const ends = checkSetting("ipEnd", request.ipEnd ?? [], naming);
  const encoders = checkSetting("ipEncoder", request.ipEncoder ?? [], naming);
  const images = await imagesOf(request.ipImage ?? [], naming);
  const openEncoder = sharingEncoders();
  const read: ReadIpAdapter[] = [];
  for (const [i, name] of names.entries()) {
    const [start, end] = [of(starts, i) ?? 0, of(ends, i) ?? 1];
    if (start >= end) {
      throw badOption(`${naming("ipStart")} ${start} must be below ${naming("ipEnd")} ${end}.`);
    }
    const adapter = openIpAdapter(files.find("ip-adapter", name), model);
    const named = of(encoders, i);
    const path = named && files.find("clip-vision", named);
    const encoder = await openEncoder(adapter, path, naming("ipEncoder"));
    const own = names.length === 1 ? images : [of(images, i)!];
    read.push({
      ...{ adapter, encoder, start, end },
      images: own.map(({ image }) => image),
      imageHashes: own.map(({ hash }) => hash),
      scales: own.map((_, place) => of(scales, names.length === 1 ? place : i) ?? 1),
    });
  }
  return read;
}

/** Those that add something, with their steps. */
export function planIpAdapters(
  read: readonly ReadIpAdapter[],
  stepCount: number,
): readonly PlannedIpAdapter[] {
  return read
    .filter(({ scales }) => scales.some((scale) => scale !== 0))
    .map((use) => ({ ...use, ...stepsWithin(use.start, use.end, stepCount) }))
    .filter(({ stepFirst, stepEnd }) => stepFirst < stepEnd);
}

/** What the library is given. */
export function ipAdapterUses(uses: readonly PlannedIpAdapter[]): IpAdapterUse[] {
  return uses.map((use) => {
    const each = use.images.map((image) => clipPatches(image, use.encoder.config));
    return { ...use, patches: joined(each) };
  });
}

/** The same without pixels, for the memory that they take. */
export function ipAdapterShapes(uses: readonly PlannedIpAdapter[]): IpAdapterUse[] {
  return uses.map((use) => ({ ...use, patches: new Float32Array() }));
}

// --- internal ---

/** Adapters that read the same encoder share it. */
function sharingEncoders() {
  const known: ClipVisionNetwork[] = [];
  return async (adapter: IpAdapterNetwork, named: string | undefined, flag: string) => {
    const encoder = await encoderOf(adapter, { named, flag });
    const same = known.find(({ path }) => path === encoder.path);
    if (same === undefined) known.push(encoder);
    return same ?? encoder;
  };
}

async function imagesOf(sources: readonly ImageSource[], naming: Naming) {
  const options = { name: naming("ipImage"), channels: 3, background: "#ffffff" } as const;
  const read: HashedImage[] = [];
  for (const source of sources) read.push(await readHashed(source, options));
  return read;
}

interface Counts {
  adapters: number;
  images: number;
}

/**
 * One adapter sees all images, of which each may have a scale; of several each has one of its own,
 * or all have the same. What is given once holds for all.
 */
function checkCounts(request: IpAdapterRequest, { adapters, images }: Counts, naming: Naming) {
  const keys = ["ipImage", "ipScale", "ipStart", "ipEnd", "ipEncoder"] as const;
  for (const key of keys) {
    const length = request[key]?.length ?? 0;
    if (adapters === 0 && length > 0) {
      throw badOption(`${naming(key)} needs an adapter, ${naming("ipAdapter")}.`);
    }
    if (length <= 1 || length === adapters) continue;
    const perImage = key === "ipImage" || (key === "ipScale" && length === images);
    if (adapters === 1 && perImage) continue;
    throw badOption(
      `There are ${adapters} of ${naming("ipAdapter")} and ${length} of ${naming(key)}: give it \
once for all, or once for each.`,
    );
  }
  if (images > ipImageCountMax) {
    throw badOption(`An adapter sees at most ${ipImageCountMax} of ${naming("ipImage")}, not \
${images}.`);
  }
  if (adapters > 0 && images === 0) {
    throw badOption(`${naming("ipAdapter")} needs an image, ${naming("ipImage")}.`);
  }
}
