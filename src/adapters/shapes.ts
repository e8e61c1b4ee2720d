/**
 * The shape of the change that an adapter's tensors make, to compare it with the weight's. Whether
 * the arithmetic of these tensors is right is the native library's affair.
 */
import type { Family, Slot } from "./keys.ts";

export type Shape = readonly number[];

/** What the tensors of a module have in common; null where they do not fit each other. */
export function changedShape(family: Family, shapeOf: (slot: Slot) => Shape | undefined) {
  switch (family) {
    case "lora":
      return loraShape(shapeOf("up"), shapeOf("down"), shapeOf("mid"));
    case "loha": {
      const first = productShape(shapeOf("w1A"), shapeOf("w1B"), shapeOf("t1"));
      const second = productShape(shapeOf("w2A"), shapeOf("w2B"), shapeOf("t2"));
      return first !== null && second !== null && isSame(first, second) ? first : null;
    }
    case "lokr":
      return lokrShape(
        shapeOf("w1") ?? productShape(shapeOf("w1A"), shapeOf("w1B"), undefined),
        shapeOf("w2") ?? productShape(shapeOf("w2A"), shapeOf("w2B"), shapeOf("t2")),
      );
    default:
      return shapeOf("value") ?? null;
  }
}

/** Whether a change of shape `change` is one of a weight of shape `weight`. */
export function fits(change: Shape, weight: Shape): boolean {
  if (countOf(change) !== countOf(weight) || countOf(weight) === 0) return false;
  // A linear layer may be stored as a 1x1 convolution, and a product of factors as a matrix.
  if ((change[0] ?? 1) !== (weight[0] ?? 1)) return false;
  return change.length < 4 || weight.length < 4 || isSame(change, weight);
}

/** Rows that alpha is divided by; null where the change has no factors. */
export function rankOf(family: Family, shapeOf: (slot: Slot) => Shape | undefined): number | null {
  const slots: Partial<Record<Family, readonly Slot[]>> = {
    lora: ["down"],
    loha: ["w1B"],
    // The last pair counts, as in ComfyUI.
    lokr: ["w2B", "w1B"],
  };
  for (const slot of slots[family] ?? []) {
    const rank = shapeOf(slot)?.[0];
    if (rank !== undefined) return rank;
  }
  return null;
}

// --- internal ---

function loraShape(up: Shape | undefined, down: Shape | undefined, mid: Shape | undefined) {
  if (up === undefined || down === undefined || up.length < 2 || down.length < 2) return null;
  const [out = 0, rank = 0] = up;
  if (countOf(up) !== out * rank) return null;
  if (mid === undefined) return rank === down[0] ? [out, ...down.slice(1)] : null;
  const [left, right, ...window] = mid;
  const isWhole = mid.length === 4 && left === rank && right === down[0];
  return isWhole && countOf(down) === down[0]! * down[1]! ? [out, down[1]!, ...window] : null;
}

/** Of two factors, or with a Tucker core of three, whose first factor is then transposed. */
function productShape(a: Shape | undefined, b: Shape | undefined, core: Shape | undefined) {
  if (a === undefined || b === undefined || a.length !== 2 || b.length < 2) return null;
  if (core === undefined) return a[1] === b[0] ? [a[0]!, ...b.slice(1)] : null;
  const isWhole = core.length === 4 && core[0] === a[0] && core[1] === b[0];
  return isWhole && b.length === 2 ? [a[1]!, b[1]!, ...core.slice(2)] : null;
}

function lokrShape(first: Shape | null, second: Shape | null) {
  if (first === null || second === null || first.length !== 2 || second.length < 2) return null;
  return [first[0]! * second[0]!, first[1]! * second[1]!, ...second.slice(2)];
}

function isSame(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((size, index) => size === b[index]);
}

function countOf(shape: Shape): number {
  return shape.reduce((product, size) => product * size, 1);
}
