/**
 * The arithmetic of `--fp16-accumulate` (cuda/matmul_cascaded.cu) on the CPU: sums of 16 products
 * are accumulated in f16, four per chunk, and chunks in f32. Operands are normally distributed f16
 * numbers, as after a norm.
 */
import { randomNormal } from "../../native/testing.ts";

/** Products per tensor-core instruction, whose sum is rounded once; and per chunk. */
const instructionDepth = 16;
const chunkDepth = 64;

/** Depths of the sums of SDXL's linear layers, and their places in the model. */
export const sdxlDepths = [
  { depth: 640, where: "attention, second level" },
  { depth: 1280, where: "attention, third level" },
  { depth: 2048, where: "keys and values of the prompt" },
  { depth: 2560, where: "feed-forward, second level" },
  { depth: 5120, where: "feed-forward, third level" },
] as const;

/** Tolerance of the product; also in its test on the emulator (zig/backend/cuda/tests). */
export const cascadedBar = 5e-4;

/** Relative L2 against sums in f64. */
interface SumErrors {
  /** Error of sums in f16. */
  cascaded: number;
  /** Error of the exact sum rounded to f16: the lower bound in f16. */
  rounding: number;
}

/** The errors over `rows` times `columns` sums of `depth` products. */
export function measureSums(depth: number, rows = 32, columns = 64): SumErrors {
  const x = halves(randomNormal(1n, 1, rows * depth));
  const w = halves(randomNormal(2n, 1, columns * depth));
  let cascaded = 0;
  let rounding = 0;
  let size = 0;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const products = (i: number) => x[row * depth + i]! * w[column * depth + i]!;
      let exact = 0;
      for (let i = 0; i < depth; i++) exact += products(i);
      cascaded += (half(cascadedSum(products, depth)) - exact) ** 2;
      rounding += (half(exact) - exact) ** 2;
      size += exact ** 2;
    }
  }
  return { cascaded: Math.sqrt(cascaded / size), rounding: Math.sqrt(rounding / size) };
}

// --- internal ---

function cascadedSum(products: (i: number) => number, depth: number): number {
  let sum = 0;
  for (let chunk = 0; chunk < depth; chunk += chunkDepth) {
    const end = Math.min(depth, chunk + chunkDepth);
    let inChunk = 0;
    for (let first = chunk; first < end; first += instructionDepth) {
      let added = inChunk;
      for (let i = first; i < Math.min(end, first + instructionDepth); i++) added += products(i);
      inChunk = half(added);
    }
    sum = Math.fround(sum + inChunk);
  }
  return sum;
}

const cell = new Float16Array(1);

/** The nearest f16. */
function half(value: number): number {
  cell[0] = value;
  return cell[0]!;
}

function halves(values: Float32Array): Float32Array {
  return Float32Array.from(new Float16Array(values));
}
