/**
 * The networks that steer a request's images by hint images: opened and read before the request is
 * planned, planned with its steps, and their hints brought to its size when its job runs.
 */
import { badOption, escaped } from "../errors.ts";
import type { Size } from "../image/encoder.ts";
import { type ImageSource, type RawImage, readHashed } from "../image/read.ts";
import { resized } from "../image/transform.ts";
import type { Model } from "../models/model.ts";
import { makeHint } from "../networks/hints.ts";
import { openControl } from "../networks/identify.ts";
import type { ControlUse } from "../networks/native.ts";
import type { ControlNetwork } from "../networks/network.ts";
import { type ControlPreprocess, controlTypes } from "../settings/control.ts";
import type { RequestSettings } from "../settings/table.ts";
import { checkSetting, type Naming } from "../settings/values.ts";

/** What a request says of them. */
export interface ControlRequest
  extends Pick<
    RequestSettings,
    | "controlnet"
    | "controlScale"
    | "controlStart"
    | "controlEnd"
    | "controlType"
    | "controlPreprocess"
  > {
  controlImage?: readonly ImageSource[] | undefined;
}

/** A use of a network, read. */
export interface ReadControl {
  network: ControlNetwork;
  image: RawImage;
  /** SHA-256 of its pixels. */
  imageHash: string;
  scale: number;
  start: number;
  end: number;
  controlType: number;
  preprocess: ControlPreprocess;
}

/** A use with the steps that it takes part in. */
export interface PlannedControl extends ReadControl {
  stepFirst: number;
  stepEnd: number;
}

/**
 * Opens the networks and reads the hints. `find` gives the absolute path of what names a network.
 * Rejects with "bad-option", "bad-model", "bad-weights", "io".
 */
export async function readControls(
  request: ControlRequest,
  model: Model,
  find: (name: string) => string,
  naming: Naming,
): Promise<ReadControl[]> {
  const names = checkSetting("controlnet", request.controlnet ?? [], naming);
  const count = names.length;
  checkCounts(request, count, naming);
  const images = eachOf(request.controlImage ?? [], count);
  const of = <T>(values: readonly T[], fallback: T) => eachOf(values, count, fallback);
  const scales = of(checkSetting("controlScale", request.controlScale ?? [], naming), 1);
  const starts = of(checkSetting("controlStart", request.controlStart ?? [], naming), 0);
  const ends = of(checkSetting("controlEnd", request.controlEnd ?? [], naming), 1);
  const types = of<number | null>(
    checkSetting("controlType", request.controlType ?? [], naming),
    null,
  );
  const makers = of<ControlPreprocess>(
    checkSetting("controlPreprocess", request.controlPreprocess ?? [], naming),
    "none",
  );
  const open = onceForEach((path: string) => openControl(path, model));
  const networks: ControlNetwork[] = [];
  for (const name of names) networks.push(await open(find(name)));
  const options = { name: naming("controlImage"), channels: 3, background: "#000000" } as const;
  const readHint = onceForEach((source: ImageSource) => readHashed(source, options));
  const read: ReadControl[] = [];
  for (const [i, network] of networks.entries()) {
    const [start, end] = [starts[i]!, ends[i]!];
    if (start >= end) {
      throw badOption(
        `${naming("controlStart")} ${start} must be below ${naming("controlEnd")} ${end}.`,
      );
    }
    const { image, hash: imageHash } = await readHint(images[i]!);
    const controlType = typeOf(network, types[i]!, naming);
    const preprocess = makers[i]!;
    read.push({
      network,
      image,
      imageHash,
      scale: scales[i]!,
      start,
      end,
      controlType,
      preprocess,
    });
  }
  return read;
}

/** With the steps of each. */
export function planControls(
  read: readonly ReadControl[],
  stepCount: number,
): readonly PlannedControl[] {
  return read.map((control) => ({
    ...control,
    ...stepsWithin(control.start, control.end, stepCount),
  }));
}

/** Steps that lie in a part of a run as a whole, as diffusers counts them. */
export function stepsWithin(start: number, end: number, stepCount: number) {
  const steps = Array.from({ length: stepCount }, (_, i) => i).filter(
    (i) => i / stepCount >= start && (i + 1) / stepCount <= end,
  );
  const stepFirst = steps[0] ?? 0;
  return { stepFirst, stepEnd: stepFirst + steps.length };
}

/** What the library is given, with hints of the size of what is generated. */
export async function controlUses(
  controls: readonly PlannedControl[],
  size: Size,
): Promise<ControlUse[]> {
  const hintOf = onceForEach((image: RawImage) =>
    onceForEach(async (preprocess: ControlPreprocess) =>
      makeHint(await resized(image, size, "cover"), preprocess),
    ),
  );
  return await Promise.all(
    controls.filter(isUsed).map(async ({ network, image, preprocess, ...use }) => {
      const { pixels } = await hintOf(image)(preprocess);
      const isBgr = network.kind === "controlnet" && network.config.isBgr;
      return { ...useOf({ network, ...use }), image: isBgr ? swapped(pixels) : pixels };
    }),
  );
}

/** The same without hints, for the memory that they take. */
export function controlShapes(controls: readonly PlannedControl[]): ControlUse[] {
  const used = controls.filter(isUsed);
  return used.map((control) => ({ ...useOf(control), image: new Uint8Array() }));
}

// --- internal ---

/** One that adds nothing is not computed, and not loaded. */
function isUsed({ scale, stepFirst, stepEnd }: PlannedControl): boolean {
  return scale !== 0 && stepFirst < stepEnd;
}

function useOf({
  network,
  scale,
  stepFirst,
  stepEnd,
  controlType,
}: Omit<PlannedControl, "image" | "preprocess">): Omit<ControlUse, "image"> {
  return { network, scale, stepFirst, stepEnd, controlType };
}

const companions = [
  "controlImage",
  "controlScale",
  "controlStart",
  "controlEnd",
  "controlType",
  "controlPreprocess",
] as const;

/** Once for all networks, or once for each; a hint for each. */
function checkCounts(request: ControlRequest, count: number, naming: Naming): void {
  for (const key of companions) {
    const length = request[key]?.length ?? 0;
    const name = naming(key);
    if (count === 0 && length > 0) {
      throw badOption(`${name} needs a network that it is for, ${naming("controlnet")}.`);
    }
    if (key === "controlImage" && count > 0 && length === 0) {
      throw badOption(`${naming("controlnet")} needs a hint image, ${name}.`);
    }
    if (length > 1 && length !== count) {
      throw badOption(
        `There are ${count} of ${naming("controlnet")} and ${length} of ${name}: give it once for \
all, or once for each.`,
      );
    }
  }
}

/** `make`, which makes the same of the same. */
function onceForEach<K, V>(make: (key: K) => V): (key: K) => V {
  const made = new Map<K, V>();
  return (key) => {
    const value = made.get(key) ?? make(key);
    made.set(key, value);
    return value;
  };
}

function eachOf<T>(values: readonly T[], count: number, fallback?: T): T[] {
  return Array.from({ length: count }, (_, i) => values[i] ?? values[0] ?? fallback!);
}

function typeOf(network: ControlNetwork, given: number | null, naming: Naming): number {
  const { name } = network;
  const count = network.kind === "controlnet" ? network.config.controlTypeCount : 0;
  const flag = naming("controlType");
  if (count === 0) {
    if (given === null) return 0;
    throw badOption(`${flag} is for union ControlNets, and ${escaped(name, 60)} is none.`);
  }
  const known = controlTypes.slice(0, count).map(([first]) => first);
  if (given === null) {
    throw badOption(
      `${escaped(name, 60)} is a union ControlNet: ${flag} must say what the hint is, \
${known.join(", ")}.`,
    );
  }
  if (given < count) return given;
  throw badOption(
    `${escaped(name, 60)} has ${count} types of hints, and ${flag} ${given} is none of them: \
${known.join(", ")} are.`,
  );
}

/** RGB to BGR. */
function swapped(pixels: Uint8Array): Uint8Array {
  return pixels.map((_, i) => pixels[i - (i % 3) + 2 - (i % 3)]!);
}
