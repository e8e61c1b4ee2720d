/**
 * A LoRA of random numbers for some modules of a model's UNet and second text encoder, in kohya's
 * names, as a file.
 */

import { writeFileSync } from "node:fs";
import { adaptableModelOf } from "../../adapters/weights.ts";
import type { Model } from "../../models/model.ts";
import { openClipModuleNames, unetModuleNames } from "../../models/names.ts";
import { seedOf, uniform } from "./formula-weights.ts";
import { headOf } from "./safetensors.ts";

/** Writes the file at `path`: rank 2, for every module whose path `chosen` matches. */
export function writeRandomLora(
  path: string,
  model: Model,
  chosen: RegExp,
  metadata: Readonly<Record<string, string>> = {},
): void {
  const { weightOf } = adaptableModelOf(model);
  const header: Record<string, unknown> = { __metadata__: metadata };
  const blobs: Uint8Array[] = [];
  let end = 0;
  const add = (name: string, shape: number[], amplitude: number) => {
    const count = shape.reduce((product, size) => product * size, 1);
    const values = uniform(seedOf(`${path.split("/").at(-1)} ${name}`), count);
    const blob = new Uint8Array(values.map((u) => u * amplitude).buffer);
    header[name] = { dtype: "F32", shape, data_offsets: [end, end + blob.length] };
    blobs.push(blob);
    end += blob.length;
  };
  const modules = [
    ...unetModuleNames(model.unet).map(({ diffusers, original }) => {
      return { component: "unet", path: diffusers, base: `lora_unet_${original}` } as const;
    }),
    ...openClipModuleNames(model.clip2).map(({ diffusers }) => {
      return {
        component: "text_encoder_2",
        path: diffusers,
        base: `lora_te2_${diffusers}`,
      } as const;
    }),
  ];
  for (const { base, ...module } of modules.filter((each) => chosen.test(each.path))) {
    const [out = 0, ...inner] = weightOf(module, "weight")?.shape ?? [];
    const ones = inner.slice(1).map(() => 1);
    const name = base.replaceAll(".", "_");
    add(`${name}.lora_up.weight`, [out, 2, ...ones], 0.5);
    add(`${name}.lora_down.weight`, [2, ...inner], 0.2);
  }
  writeFileSync(path, Buffer.concat([headOf(header), ...blobs]));
}
