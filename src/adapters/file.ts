/**
 * An adapter file against the model: every key that names a module of the model becomes a target
 * (one weight and the tensors that change it), the others are counted. Only the header and the
 * alphas are read.
 */
import { basename, extname } from "node:path";
import { BasedXLError, badWeights, escaped } from "../errors.ts";
import {
  readSafetensorsHeader,
  readTensorF32,
  type SafetensorsHeader,
} from "../models/safetensors-header.ts";
import type { AdapterTarget } from "../native/adapters.ts";
import type { NamedModule } from "./aliases.ts";
import { architectureOf, identify } from "./identify.ts";
import { type Family, isBundledEmbedding, refusedKind, type Slot, splitKey } from "./keys.ts";
import { type PeftScales, peftScalesOf } from "./scales.ts";
import { changedShape, fits, rankOf, type Shape } from "./shapes.ts";
import type { AdaptableModel } from "./weights.ts";

export interface AdapterFile {
  header: SafetensorsHeader;
  /** The file's name without its ending. */
  name: string;
  targets: AdapterTarget[];
  /** Keys that name nothing in the model, or lack their counterpart, in the file's order. */
  unmatched: string[];
  /** Modules that the file names in both ways; diffusers' names count, as in diffusers. */
  namedTwice: number;
}

/**
 * Reads the header of the file at `path`. Throws "bad-weights" for a file that is broken, that
 * changes nothing of this model, or does not fit it: each says what the file is.
 */
export function readAdapterFile(path: string, model: AdaptableModel): AdapterFile {
  return matchAdapter(readSafetensorsHeader(path), model);
}

/** The same for a header that was read; alphas are read from its file. */
export function matchAdapter(header: SafetensorsHeader, model: AdaptableModel): AdapterFile {
  const groups = new Map<string, Group>();
  const unmatched: string[] = [];
  for (const key of header.tensors.keys()) {
    if (isBundledEmbedding(key)) continue;
    const kind = refusedKind(key);
    if (kind !== null) throw refuseKind(header, kind, key);
    if (!addToGroup(groups, key, model)) unmatched.push(key);
  }
  const twice = [...groups].filter(([id, { names }]) => {
    return names === "original" && groups.has(`diffusers ${id.split(" ")[1]}`);
  });
  for (const [id] of twice) groups.delete(id);
  const scales = peftScalesOf(header);
  const targets = [...groups.values()].flatMap((group) => {
    return targetsOf(group, { header, model, scales, unmatched });
  });
  if (targets.length === 0) throw refuseFile(header);
  const { path } = header;
  const name = basename(path, extname(path));
  return { header, name, targets, unmatched, namedTwice: twice.length };
}

// --- internal ---

/** The keys of one module. */
interface Group {
  module: NamedModule;
  names: "diffusers" | "original" | "both";
  /** Keys of each family's tensors. */
  families: Map<Family, Map<Slot, string>>;
  /** Keys of what the families share: alpha and DoRA. */
  shared: Map<Slot, string>;
}

interface Reading {
  header: SafetensorsHeader;
  model: AdaptableModel;
  scales: PeftScales;
  /** Gets the keys that are left over. */
  unmatched: string[];
}

/** False where the key belongs to no module, or another key has its place. */
function addToGroup(groups: Map<string, Group>, key: string, { aliases }: AdaptableModel): boolean {
  const split = splitKey(key);
  const found = split && aliases.find(split.base);
  if (!split || !found) return false;
  const { component, path, names } = found;
  const id = `${names} ${component}/${path}`;
  let group = groups.get(id);
  if (group === undefined) {
    group = { module: found, names, families: new Map(), shared: new Map() };
    groups.set(id, group);
  }
  const { slot, family } = split;
  const slots = family === null ? group.shared : (group.families.get(family) ?? new Map());
  if (family !== null) group.families.set(family, slots);
  if (slots.has(slot)) return false;
  slots.set(slot, key);
  return true;
}

function targetsOf({ module, families, shared }: Group, reading: Reading): AdapterTarget[] {
  const { header, model, unmatched } = reading;
  const targets: AdapterTarget[] = [];
  const rest = new Set(shared.values());
  for (const [family, slots] of families) {
    const tensorOf = (slot: Slot) => tensorIn(header, slots.get(slot));
    const shapeOf = (slot: Slot) => tensorOf(slot)?.shape;
    const weight = model.weightOf(module, family === "diffBias" ? "bias" : "weight");
    if (weight === null || !isWhole(family, slots)) {
      unmatched.push(...slots.values());
      continue;
    }
    const change = changedShape(family, shapeOf);
    if (change === null || !fits(change, weight.shape)) {
      throw refuseShape(header, [...slots.values()][0]!, change, weight.shape);
    }
    const isFactored = family === "lora" || family === "loha" || family === "lokr";
    if (isFactored) rest.clear();
    else rest.delete(shared.get("alpha") ?? "");
    const { component, key } = weight;
    const dora = isFactored ? doraOf(shared, reading, weight.shape) : noDora;
    const tensors = { ...Object.fromEntries(slots), ...dora.tensors };
    const scale = scaleOf(rankOf(family, shapeOf), module, shared, reading);
    const { doraNorm } = dora;
    targets.push({ component, key, algorithm: algorithms[family], scale, doraNorm, tensors });
  }
  unmatched.push(...rest);
  return targets;
}

const algorithms = {
  lora: "lora",
  loha: "loha",
  lokr: "lokr",
  diff: "difference",
  diffBias: "difference",
  set: "replace",
} as const satisfies Record<Family, AdapterTarget["algorithm"]>;

/** Whether no tensor is missing that the change needs. */
function isWhole(family: Family, slots: ReadonlyMap<Slot, string>): boolean {
  const has = (...all: Slot[]) => all.every((slot) => slots.has(slot));
  switch (family) {
    case "lora":
      return has("up", "down");
    case "loha":
      return has("w1A", "w1B", "w2A", "w2B") && slots.has("t1") === slots.has("t2");
    case "lokr":
      return (has("w1") || has("w1A", "w1B")) && (has("w2") || has("w2A", "w2B"));
    default:
      return true;
  }
}

const noDora = { tensors: {}, doraNorm: "original" } as const;

/**
 * kohya's and LyCORIS' DoRA divides rows by the norm of the weight itself and columns by that of
 * the sum, as ComfyUI does; PEFT's has rows alone and the sum's norm. The library tells rows from
 * columns by the shape.
 */
function doraOf(
  shared: ReadonlyMap<Slot, string>,
  { header }: Reading,
  weight: Shape,
): Pick<AdapterTarget, "tensors" | "doraNorm"> {
  const name = shared.get("doraScale") ?? shared.get("magnitude");
  const tensor = tensorIn(header, name);
  if (name === undefined || tensor === undefined) return noDora;
  const count = tensor.shape.reduce((product, size) => product * size, 1);
  const isPeft = !shared.has("doraScale");
  const isPerRow = count === weight[0] && (isPeft || tensor.shape[0] === count);
  const isPerColumn = !isPeft && tensor.shape[0] === 1 && count === weight[1];
  if (!isPerRow && !isPerColumn) throw refuseShape(header, name, tensor.shape, weight);
  return { tensors: { doraScale: name }, doraNorm: isPeft ? "merged" : "original" };
}

function scaleOf(
  rank: number | null,
  module: NamedModule,
  shared: ReadonlyMap<Slot, string>,
  { header, scales }: Reading,
): number {
  if (rank === null) return 1;
  const key = shared.get("alpha");
  if (key === undefined) return scales(module, rank) ?? 1;
  const alpha = numberIn(header, key);
  if (Number.isFinite(alpha)) return alpha / rank;
  throw badWeights(header.path, `has an alpha that is no finite number, ${escaped(key, 120)}`);
}

/** The value of a tensor of one number; NaN for others. */
function numberIn(header: SafetensorsHeader, key: string): number {
  const { shape = [] } = header.tensors.get(key) ?? {};
  if (shape.some((size) => size !== 1)) return Number.NaN;
  try {
    return readTensorF32(header, key)[0] ?? Number.NaN;
  } catch (error) {
    if (error instanceof BasedXLError) throw error;
    throw badWeights(header.path, `cannot be read (${escaped((error as Error).message, 200)})`);
  }
}

function tensorIn({ tensors }: SafetensorsHeader, name: string | undefined) {
  return name === undefined ? undefined : tensors.get(name);
}

function refuseKind(header: SafetensorsHeader, kind: string, key: string): BasedXLError {
  return badWeights(
    header.path,
    `is an adapter of the kind ${kind} (${escaped(key, 100)}), which is not supported; LoRA, \
LoCon, LoHa, LoKr, DoRA and whole differences are`,
  );
}

/** Of a file of which no key matches. */
function refuseFile(header: SafetensorsHeader): BasedXLError {
  const { what, advice, isLora } = identify(header);
  if (isLora) {
    const few = [...header.tensors.keys()].slice(0, 2).map((key) => escaped(key, 120));
    return badWeights(
      header.path,
      `is ${what}, and changes nothing of this model, which has no weights for ${few.join(", ")}`,
    );
  }
  const rest = advice === null ? "" : `; ${advice}`;
  return badWeights(header.path, `is ${what}, not a LoRA that changes this model${rest}`);
}

function refuseShape(
  header: SafetensorsHeader,
  key: string,
  change: Shape | null,
  weight: Shape,
): BasedXLError {
  const architecture = architectureOf(header);
  const whose = architecture === null ? "" : `is a LoRA for ${architecture}, and `;
  const size = change === null ? "factors that do not fit each other" : sizeOf(change);
  return badWeights(
    header.path,
    `${whose}does not fit this model: ${escaped(key, 120)} has ${size}, and the model's weight \
is ${sizeOf(weight)}`,
  );
}

function sizeOf(shape: Shape): string {
  return shape.length === 0 ? "a single number" : shape.join("x");
}
