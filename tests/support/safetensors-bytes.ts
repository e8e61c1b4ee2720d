/**
 * A safetensors file of zeros with these tensors, F16, for tests that look at headers.
 */
import { headOf } from "../../src/bench/support/safetensors.ts";

export function safetensorsBytes(
  shapes: Readonly<Record<string, readonly number[]>>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  let end = 0;
  const tensors = Object.entries(shapes).map(([name, shape]) => {
    const begin = end;
    end += 2 * shape.reduce((product, size) => product * size, 1);
    return [name, { dtype: "F16", shape, data_offsets: [begin, end] }] as const;
  });
  const header = { __metadata__: metadata, ...Object.fromEntries(tensors) };
  return Buffer.concat([headOf(header), Buffer.alloc(end)]);
}
