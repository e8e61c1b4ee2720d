/**
 * Recorded outputs of PyTorch, thinned: for a tensor of more than 512 elements the file holds
 * `name%N`, every N-th element, and `name#B`, the 2-norms of blocks of B. Inputs are formulas.
 * tests/reference/thin.py writes both and explains why the whole tensor's limit holds for them.
 */
import { relativeL2 } from "./compare.ts";
import { seedOf, uniform } from "./formula-weights.ts";
import type { Tensor } from "./safetensors.ts";

interface Kept {
  /** The recorded elements: all of them or every `stride`-th. */
  data: Float32Array;
  stride: number;
  /** 2-norms of blocks of `blockLength` elements; null where all elements are recorded. */
  norms: Float32Array | null;
  blockLength: number;
}

/** The record of `name`. Throws an error that lists the existing names when there is none. */
export function keptOf(tensors: Map<string, Tensor>, name: string): Kept {
  const whole = tensors.get(name);
  if (whole) return { data: whole.data, stride: 1, norms: null, blockLength: 0 };
  const marked = (mark: string) => {
    const key = tensors.keys().find((each) => each.startsWith(name + mark));
    if (key === undefined) {
      throw new Error(`no tensor ${name} among ${[...tensors.keys()].join(", ")}`);
    }
    return { data: tensors.get(key)!.data, number: Number(key.slice(name.length + 1)) };
  };
  const elements = marked("%");
  const norms = marked("#");
  return {
    data: elements.data,
    stride: elements.number,
    norms: norms.data,
    blockLength: norms.number,
  };
}

/** Whether anything is recorded as `name`. */
export function isRecorded(tensors: Map<string, Tensor>, name: string): boolean {
  return tensors.has(name) || tensors.keys().some((key) => key.startsWith(`${name}%`));
}

/** The relative L2 error of `ours`, a whole tensor, over the recorded elements or norms. */
export function relativeL2From(
  tensors: Map<string, Tensor>,
  name: string,
  ours: ArrayLike<number>,
): number {
  const kept = keptOf(tensors, name);
  const elements = relativeL2(everyNth(ours, kept.stride), kept.data);
  if (kept.norms === null) return elements;
  return Math.max(elements, relativeL2(blockNorms(ours, kept.blockLength), kept.norms));
}

/** Elements 0, `stride`, 2 `stride`, … of `values`. */
export function everyNth(values: ArrayLike<number>, stride: number): Float32Array {
  const count = Math.ceil(values.length / stride);
  return Float32Array.from({ length: count }, (_, i) => values[i * stride]!);
}

/** Numbers in [-amplitude, amplitude), as `formula_input` of thin.py makes them. */
export function formulaInput(name: string, shape: number[], amplitude: number): Tensor {
  const count = shape.reduce((product, size) => product * size, 1);
  const factor = Math.fround(amplitude);
  return { dtype: "F32", shape, data: uniform(seedOf(name), count).map((u) => u * factor) };
}

// --- internal ---

function blockNorms(values: ArrayLike<number>, blockLength: number): Float32Array {
  const sums = new Float64Array(Math.ceil(values.length / blockLength));
  for (let i = 0; i < values.length; i++) sums[Math.floor(i / blockLength)]! += values[i]! ** 2;
  return Float32Array.from(sums, Math.sqrt);
}
