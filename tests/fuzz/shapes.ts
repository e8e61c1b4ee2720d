/**
 * Tensors of a file of weights by their names and shapes, nearly right: what tells one kind of file
 * from another, and one size of a network from another.
 */
import { mutateText } from "./mutate.ts";
import type { Random } from "./random.ts";

export type Shapes = Record<string, readonly number[]>;

interface Possible {
  /** Further names of tensors. */
  names: readonly string[];
  /** Of a tensor. Files have holes in the place of numbers, and no file system has more. */
  elementsMax?: number | undefined;
}

/** One to four tensors lost, renamed, exchanged or of other shapes. */
export function mutateShapes(
  random: Random,
  shapes: Shapes,
  { names, elementsMax = 2 ** 40 }: Possible,
): Shapes {
  const changed = { ...shapes };
  const keys = Object.keys(shapes);
  for (let count = 1 + random.below(4); count > 0; count--) {
    const key = random.pick(keys);
    const shape = changed[key] ?? [];
    switch (random.below(7)) {
      case 0:
        delete changed[key];
        break;
      case 1:
        changed[random.pick(keys)] = shape;
        break;
      case 2:
        changed[mutateText(random, key, pieces)] = shape;
        break;
      case 3:
        changed[random.pick(names)] = shape;
        break;
      default:
        changed[key] = changedShape(random, shape, elementsMax);
    }
  }
  return changed;
}

// --- internal ---

const pieces = [
  ".",
  "_",
  "weight",
  "bias",
  "0",
  "1",
  "99",
  "lora_",
  "model.",
  "blocks.",
  "__proto__",
];
const sizes = [0, 1, 2, 3, 4, 7, 8, 32, 64, 768, 1280, 2048, 65_536];

function changedShape(
  random: Random,
  shape: readonly number[],
  elementsMax: number,
): readonly number[] {
  const sized = [...shape];
  const at = random.below(shape.length + 1);
  const how = random.below(4);
  if (how === 0) sized.splice(at, 1);
  else if (how === 1) sized.splice(at, 0, random.pick(sizes));
  else sized[at] = random.pick(sizes);
  return sized.reduce((product, size) => product * size, 1) > elementsMax ? [] : sized;
}
