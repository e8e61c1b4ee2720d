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

/** A hint, read. */
interface ReadHint {
  image: RawImage;
  /** SHA-256 of its pixels. */
  imageHash: string;
  scale: number;
  controlType: number;
  preprocess: ControlPreprocess;
}

/** A use of a network, read. */
export interface ReadControl {
  network: ControlNetwork;
  /** One, or several that a union model reads in one evaluation. */
  hints: readonly ReadHint[];
  start: number;
  end: number;
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
  const open = onceForEach((path: string) => openControl(path, model));
  const networks: ControlNetwork[] = [];
  for (const name of names) networks.push(await open(find(name)));
  const isJoined = readsTogether(networks, request.controlImage ?? [], naming);
  const count = isJoined ? request.controlImage!.length : names.length;
  checkCounts(request, count, isJoined ? "controlImage" : "controlnet", naming);
  const ranges = rangesOf(request, count, naming);
  const hints = await readHints(request, (i) => networks[isJoined ? 0 : i]!, count, naming);
  if (!isJoined) {
    return networks.map((network, i) => ({ network, hints: [hints[i]!], ...ranges[i]! }));
  }
  const [range] = ranges;
  if (ranges.every(({ start, end }) => start === range!.start && end === range!.end)) {
    return [{ network: networks[0]!, hints, ...range! }];
  }
  throw badOption(
    `Hints that ${escaped(networks[0]!.name, 60)} reads at once have the same \
${naming("controlStart")} and ${naming("controlEnd")}: name it by ${naming("controlnet")} once for \
each hint to give them others.`,
  );
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
    controls.filter(isUsed).map((control) =>
      useOf(control, async ({ image, preprocess }) => {
        const { pixels } = await hintOf(image)(preprocess);
        const { network } = control;
        return network.kind === "controlnet" && network.config.isBgr ? swapped(pixels) : pixels;
      }),
    ),
  );
}

/** The same without hints, for the memory that they take. */
export function controlShapes(controls: readonly PlannedControl[]): ControlUse[] {
  return controls.filter(isUsed).map((control) => shapeOf(control));
}

// --- internal ---

/** One that adds nothing is not computed, and not loaded. */
function isUsed({ hints, stepFirst, stepEnd }: PlannedControl): boolean {
  return hints.some(({ scale }) => scale !== 0) && stepFirst < stepEnd;
}

async function useOf(
  control: PlannedControl,
  pixelsOf: (hint: ReadHint) => Promise<Uint8Array>,
): Promise<ControlUse> {
  const shape = shapeOf(control);
  const images = await Promise.all(control.hints.map(pixelsOf));
  return { ...shape, hints: shape.hints.map((hint, i) => ({ ...hint, image: images[i]! })) };
}

/** The scale of one hint is that of what the network adds; several have each its own before. */
function shapeOf({ network, hints, stepFirst, stepEnd }: PlannedControl): ControlUse {
  const image = new Uint8Array();
  const [first, ...others] = hints;
  const isAlone = others.length === 0;
  return {
    ...{ network, stepFirst, stepEnd },
    hints: hints.map(({ controlType, scale }) => ({
      ...{ image, controlType },
      scale: isAlone ? 1 : scale,
    })),
    scale: isAlone ? first!.scale : 1,
  };
}

/** Whether there is one network for several hints, which a union model reads in one evaluation. */
function readsTogether(
  networks: readonly ControlNetwork[],
  images: readonly ImageSource[],
  naming: Naming,
): boolean {
  const [network] = networks;
  if (network === undefined || networks.length > 1 || images.length < 2) return false;
  if (network.kind === "controlnet" && network.config.controlTypeCount > 0) return true;
  throw badOption(
    `${escaped(network.name, 60)} reads one hint, and there are ${images.length} of \
${naming("controlImage")}: a union ControlNet alone reads several.`,
  );
}

/** The part of the steps of each hint. */
function rangesOf(request: ControlRequest, count: number, naming: Naming) {
  const starts = checkSetting("controlStart", request.controlStart ?? [], naming);
  const ends = checkSetting("controlEnd", request.controlEnd ?? [], naming);
  return Array.from({ length: count }, (_, i) => {
    const [start, end] = [starts[i] ?? starts[0] ?? 0, ends[i] ?? ends[0] ?? 1];
    if (start < end) return { start, end };
    throw badOption(
      `${naming("controlStart")} ${start} must be below ${naming("controlEnd")} ${end}.`,
    );
  });
}

async function readHints(
  request: ControlRequest,
  networkAt: (index: number) => ControlNetwork,
  count: number,
  naming: Naming,
): Promise<ReadHint[]> {
  const images = eachOf(request.controlImage ?? [], count);
  const of = <T>(values: readonly T[], fallback: T) => eachOf(values, count, fallback);
  const scales = of(checkSetting("controlScale", request.controlScale ?? [], naming), 1);
  const types = of<number | null>(
    checkSetting("controlType", request.controlType ?? [], naming),
    null,
  );
  const makers = of<ControlPreprocess>(
    checkSetting("controlPreprocess", request.controlPreprocess ?? [], naming),
    "none",
  );
  const options = { name: naming("controlImage"), channels: 3, background: "#000000" } as const;
  const readHint = onceForEach((source: ImageSource) => readHashed(source, options));
  const hints: ReadHint[] = [];
  for (let i = 0; i < count; i++) {
    const { image, hash: imageHash } = await readHint(images[i]!);
    const controlType = typeOf(networkAt(i), types[i]!, naming);
    const [scale, preprocess] = [scales[i]!, makers[i]!];
    hints.push({ image, imageHash, scale, controlType, preprocess });
  }
  return hints;
}

const companions = [
  "controlImage",
  "controlScale",
  "controlStart",
  "controlEnd",
  "controlType",
  "controlPreprocess",
] as const;

/** Once for all of what is counted, or once for each; a hint for each. */
function checkCounts(
  request: ControlRequest,
  count: number,
  counted: "controlnet" | "controlImage",
  naming: Naming,
): void {
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
        `There are ${count} of ${naming(counted)} and ${length} of ${name}: give it once for \
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
