/**
 * Networks beside the model as structs of the library, and what a job does with them.
 */
import { unetConfigOf } from "../models/native-model.ts";
import {
  sizeOfControlNetConfig,
  sizeOfControlUse,
  sizeOfNetwork,
  writeControlNetConfig,
  writeControlUse,
  writeNetwork,
} from "../native/abi.ts";
import { bytesOf } from "../native/library.ts";
import { networkBytes } from "../native/weight-names.ts";
import type { Network } from "./network.ts";

/** A use of a network with a hint image. */
export interface ControlUse {
  network: Network;
  /** RGB of the image's size; empty where the shape alone matters. */
  image: Uint8Array;
  scale: number;
  /** The steps that it takes part in, [first, end). */
  stepFirst: number;
  stepEnd: number;
  /** Of a union model, else 0. */
  controlType: number;
}

/** The library's structs, and the arrays that they point to, which must live as long. */
export function controlBytes(uses: readonly ControlUse[]) {
  const networks = [...new Set(uses.map(({ network }) => network))];
  const keepAlive: unknown[] = [uses];
  const bytes = new Uint8Array(networks.length * sizeOfNetwork);
  const view = new DataView(bytes.buffer);
  for (const [i, { kind, config, weights }] of networks.entries()) {
    const { files, names, keepAlive: own } = networkBytes(weights);
    const configBytes = new Uint8Array(sizeOfControlNetConfig);
    writeControlNetConfig(new DataView(configBytes.buffer), 0, {
      unet: unetConfigOf(config.unet, config.timeIdCount),
      conditioningChannels: config.conditioningChannels,
      embeddingLevelCount: config.embeddingChannels.length,
      embeddingChannels: config.embeddingChannels,
      controlTypeCount: config.controlTypeCount,
      typeLayerCount: config.typeLayerCount,
    });
    keepAlive.push(...own, configBytes);
    writeNetwork(view, i * sizeOfNetwork, { kind, config: bytesOf(configBytes), files, names });
  }
  const useBytes = new Uint8Array(uses.length * sizeOfControlUse);
  const useView = new DataView(useBytes.buffer);
  for (const [i, { network, image, ...use }] of uses.entries()) {
    writeControlUse(useView, i * sizeOfControlUse, {
      ...use,
      networkIndex: networks.indexOf(network),
      image: bytesOf(image),
    });
  }
  keepAlive.push(bytes, useBytes);
  return { networks: bytesOf(bytes), controls: bytesOf(useBytes), keepAlive };
}
