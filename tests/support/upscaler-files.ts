/**
 * Files of small upscalers with weights by the formula of tests/reference/make_upscalers.py, also
 * under the keys of other programs.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { formulaTensor } from "../../src/bench/support/formula-weights.ts";
import { headOf } from "../../src/bench/support/safetensors.ts";

const features = 16;
const growth = 8;

/** The names are those of the recorded outputs. */
export const upscalers = {
  rrdbnet_x4: rrdbNetShapes({ blocks: 2, unshuffle: 1 }),
  rrdbnet_x2: rrdbNetShapes({ blocks: 1, unshuffle: 2 }),
  rrdbnet_x1: rrdbNetShapes({ blocks: 1, unshuffle: 4 }),
  compact_x4: compactShapes(2, 4),
} as const;
export type UpscalerName = keyof typeof upscalers;

let folder: string | null = null;

export function removeUpscalers(): void {
  if (folder !== null) rmSync(folder, { recursive: true, force: true });
  folder = null;
}

/** Returns the path; `keyOf` gives the file's key of Real-ESRGAN's. */
export function writeUpscaler(
  name: UpscalerName,
  { file = `${name}.safetensors`, keyOf = (key: string) => key, scale = 1 } = {},
): string {
  const header: Record<string, unknown> = {};
  const blobs: Uint8Array[] = [];
  let offset = 0;
  for (const [key, shape] of Object.entries(upscalers[name])) {
    const values = formulaTensor(name, key, shape).map((value) => value * scale);
    const blob = new Uint8Array(values.buffer);
    header[keyOf(key)] = { dtype: "F32", shape, data_offsets: [offset, offset + blob.length] };
    blobs.push(blob);
    offset += blob.length;
  }
  folder ??= mkdtempSync(join(tmpdir(), "basedxl-upscalers-"));
  const path = join(folder, file);
  writeFileSync(path, Buffer.concat([headOf(header, 8), ...blobs]));
  return path;
}

/** The keys of the first ESRGAN, of a network with so many blocks that enlarges four times. */
export function firstKeyOf(blocks: number): (key: string) => string {
  const places: Readonly<Record<string, string>> = {
    conv_first: "model.0",
    conv_body: `model.1.sub.${blocks}`,
    ...{ conv_up1: "model.3", conv_up2: "model.6", conv_hr: "model.8", conv_last: "model.10" },
  };
  return (key) =>
    key
      .replace(/^body\.(\d+)\.rdb(\d)\.(conv\d)/, "model.1.sub.$1.RDB$2.$3.0")
      .replace(/^conv_\w+/, (module) => places[module]!);
}

// --- internal ---

type Shapes = Record<string, number[]>;

function convolution(name: string, out: number, channels: number): Shapes {
  return { [`${name}.weight`]: [out, channels, 3, 3], [`${name}.bias`]: [out] };
}

function rrdbNetShapes({ blocks, unshuffle }: { blocks: number; unshuffle: number }): Shapes {
  const shapes = convolution("conv_first", features, 3 * unshuffle ** 2);
  for (let block = 0; block < blocks; block++) {
    for (const dense of [1, 2, 3]) {
      for (const i of [0, 1, 2, 3, 4]) {
        const name = `body.${block}.rdb${dense}.conv${i + 1}`;
        Object.assign(shapes, convolution(name, i < 4 ? growth : features, features + i * growth));
      }
    }
  }
  for (const name of ["conv_body", "conv_up1", "conv_up2", "conv_hr"]) {
    Object.assign(shapes, convolution(name, features, features));
  }
  return { ...shapes, ...convolution("conv_last", 3, features) };
}

function compactShapes(blocks: number, scale: number): Shapes {
  const shapes: Shapes = {};
  for (let i = 0; i <= blocks; i++) {
    Object.assign(shapes, convolution(`body.${2 * i}`, features, i === 0 ? 3 : features));
    shapes[`body.${2 * i + 1}.weight`] = [features];
  }
  return { ...shapes, ...convolution(`body.${2 * blocks + 2}`, 3 * scale ** 2, features) };
}
