/**
 * Adapters (LoRA and kin) as structs of the library: which tensors of a file change which weights,
 * and how. Matching a file's keys to weights is src/adapters/'s work.
 */
import {
  type Algorithm,
  type Component,
  type DoraNorm,
  sizeOfAdapter,
  sizeOfAdapterTarget,
  writeAdapter,
  writeAdapterTarget,
} from "./abi.ts";
import { bytesOf } from "./library.ts";

/** What a tensor is to its algorithm; see `AdapterTarget` in zig/abi/types.zig. */
const adapterRoles = [
  "up",
  "down",
  "mid",
  "w1",
  "w1A",
  "w1B",
  "t1",
  "w2",
  "w2A",
  "w2B",
  "t2",
  "value",
  "doraScale",
] as const;
type AdapterRole = (typeof adapterRoles)[number];

/** A weight that an adapter changes. */
export interface AdapterTarget {
  component: keyof typeof Component;
  /** The weight's key as diffusers names it, ".weight" or ".bias" included. */
  key: string;
  algorithm: keyof typeof Algorithm;
  /** alpha / rank of the delta; 1 where the file has no alpha, and for LoKr without factors. */
  scale: number;
  /** Names in the adapter's file. */
  tensors: Partial<Record<AdapterRole, string>>;
  /** Norm that DoRA divides by. Default original; PEFT's files mean merged. */
  doraNorm?: keyof typeof DoraNorm;
}

export interface Adapter {
  /** Absolute path of a safetensors file. */
  path: string;
  /** The user's factors, for UNet and VAE, and for the text encoders; 0 changes nothing. */
  unetScale: number;
  textScale: number;
  targets: readonly AdapterTarget[];
}

/** The library's structs, and the arrays that they point to, which must live as long. */
export function adapterBytes(adapters: readonly Adapter[]): {
  bytes: Uint8Array;
  keepAlive: Uint8Array[];
} {
  const keepAlive: Uint8Array[] = [];
  const text = (value: string | undefined) => {
    if (!value) return bytesOf(null);
    const encoded = new TextEncoder().encode(value);
    keepAlive.push(encoded);
    return bytesOf(encoded);
  };
  const bytes = new Uint8Array(adapters.length * sizeOfAdapter);
  const view = new DataView(bytes.buffer);
  for (const [index, { path, unetScale, textScale, targets }] of adapters.entries()) {
    const targetBytes = new Uint8Array(targets.length * sizeOfAdapterTarget);
    keepAlive.push(targetBytes);
    const targetView = new DataView(targetBytes.buffer);
    for (const [i, { tensors, doraNorm, key, ...target }] of targets.entries()) {
      const names = Object.fromEntries(adapterRoles.map((role) => [role, text(tensors[role])]));
      writeAdapterTarget(targetView, i * sizeOfAdapterTarget, {
        ...target,
        ...(names as Record<AdapterRole, ReturnType<typeof bytesOf>>),
        doraNorm: doraNorm ?? "original",
        key: text(key),
      });
    }
    writeAdapter(view, index * sizeOfAdapter, {
      path: text(path),
      unetScale,
      textScale,
      targets: bytesOf(targetBytes),
    });
  }
  return { bytes, keepAlive };
}
