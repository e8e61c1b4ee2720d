/**
 * What libFuzzer begins with: small whole files of each kind, by target.
 */
import { safetensorsBytes } from "../support/safetensors-bytes.ts";

const model = safetensorsBytes({ "x.weight": [4, 6], "y.weight": [6, 4] });
const quantized = withHeader(
  '{"x.weight":{"dtype":"F8_E4M3","shape":[4,6],"data_offsets":[0,24]},' +
    '"x.scale_weight":{"dtype":"F32","shape":[],"data_offsets":[24,28]},' +
    '"a.weight":{"dtype":"I8","shape":[4,6],"data_offsets":[28,52]},' +
    '"a.weight_scale":{"dtype":"F32","shape":[4,1],"data_offsets":[52,68]},' +
    '"__metadata__":{"_quantization_metadata":' +
    '"{\\"layers\\":{\\"x\\":{\\"format\\":\\"float8_e4m3fn\\"}}}"}}',
  68,
);

/** Bits of `Role` in zig/weights/adapters.zig. */
const roles = [
  "up",
  "down",
  "mid",
  "w1",
  "w1_a",
  "w1_b",
  "t1",
  "w2",
  "w2_a",
  "w2_b",
  "t2",
  "value",
];

function adapter(algorithm: number, shapes: Record<string, readonly number[]>, flags = 0): Buffer {
  const bits = Object.keys(shapes).reduce((sum, name) => sum | (1 << roles.indexOf(name)), 0);
  const head = Buffer.of(flags, algorithm, bits & 0xff, bits >> 8);
  return Buffer.concat([head, safetensorsBytes(shapes)]);
}

export const nativeSeeds: Readonly<Record<string, readonly Uint8Array[]>> = {
  safetensors: [
    model,
    quantized,
    withHeader('{"a":{"dtype":"F16","shape":[],"data_offsets":[0,2]}}', 2),
  ],
  checkpoint: [0, 1].flatMap((flag) =>
    [model, quantized].map((file) => Buffer.concat([Buffer.of(flag), file])),
  ),
  adapter: [
    adapter(0, { up: [4, 2], down: [2, 6] }),
    adapter(0, { up: [4, 2, 1, 1], down: [2, 6, 2, 2] }, 1),
    adapter(0, { up: [4, 2], down: [3, 6], mid: [2, 3, 2, 2] }, 1),
    adapter(1, { w1_a: [4, 2], w1_b: [2, 6], w2_a: [4, 2], w2_b: [2, 6] }),
    adapter(2, { w1: [2, 2], w2: [2, 3] }),
    adapter(2, { w1_a: [2, 1], w1_b: [1, 2], w2_a: [2, 1], w2_b: [1, 3] }),
    adapter(3, { value: [4, 6] }),
  ],
  // Numbers of fields that stay, and values of the next ones.
  "abi-configs": [Buffer.of(), Buffer.of(2, 6, 3), Buffer.of(40, 0, 2, 9, 4, 1, 1)],
  "abi-requests": [
    ...[Buffer.of(), Buffer.of(1, 6, 1), Buffer.of(3, 6, 8, 30, 0, 1, 0)],
    // Panics once: places of noise whose length is no multiple of a number's.
    ...["aQIDAwAAAAAAAAAAAAAC", "aQQB+Q==", "afX5"].map((text) => Buffer.from(text, "base64")),
  ],
};

// --- internal ---

function withHeader(header: string, dataBytes: number): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, Buffer.from(header), Buffer.alloc(dataBytes)]);
}
