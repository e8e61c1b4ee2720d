/**
 * Networks beside the model as structs of the library, and what a job does with them.
 */
import { unetConfigOf } from "../models/native-model.ts";
import {
  sizeOfClipVisionConfig,
  sizeOfControlHint,
  sizeOfControlNetConfig,
  sizeOfControlUse,
  sizeOfIpAdapterConfig,
  sizeOfIpAdapterUse,
  sizeOfNetwork,
  sizeOfT2iAdapterConfig,
  sizeOfUpscalerConfig,
  writeClipVisionConfig,
  writeControlHint,
  writeControlNetConfig,
  writeControlUse,
  writeIpAdapterConfig,
  writeIpAdapterUse,
  writeNetwork,
  writeT2iAdapterConfig,
  writeUpscalerConfig,
} from "../native/abi.ts";
import type { NetworkStructs } from "../native/handle.ts";
import { bytesOf } from "../native/library.ts";
import { networkBytes } from "../native/weight-names.ts";
import type {
  ClipVisionNetwork,
  ControlNetwork,
  IpAdapterNetwork,
  Network,
  UpscalerNetwork,
} from "./network.ts";

/** A hint image of a network. */
export interface ControlHint {
  /** RGB of the image's size; empty where the shape alone matters. */
  image: Uint8Array;
  /** Of a union model, else 0. */
  controlType: number;
  /** Among several of a union model. */
  scale: number;
}

/** A use of a network with its hint image, or several of a union model. */
export interface ControlUse {
  network: ControlNetwork;
  hints: readonly ControlHint[];
  scale: number;
  /** The steps that it takes part in, [first, end). */
  stepFirst: number;
  stepEnd: number;
}

/** A use of an IP-Adapter with the images that it sees. */
export interface IpAdapterUse {
  adapter: IpAdapterNetwork;
  encoder: ClipVisionNetwork;
  /** One per image. */
  scales: readonly number[];
  /** Of each image, as `clipPatches` gives them; empty where the shape alone matters. */
  patches: Float32Array;
  /** The steps that it takes part in, [first, end). */
  stepFirst: number;
  stepEnd: number;
}

/** What a job does with networks beside the model. */
export interface NetworkUses {
  controls: readonly ControlUse[];
  ipAdapters: readonly IpAdapterUse[];
}

export const noUses: NetworkUses = { controls: [], ipAdapters: [] };

/** Each once, in the library's order. */
export function networksOf({ controls, ipAdapters }: NetworkUses): Network[] {
  const all = [
    ...controls.map(({ network }) => network),
    ...ipAdapters.flatMap(({ adapter, encoder }) => [adapter, encoder]),
  ];
  return [...new Set(all)];
}

export function networkStructs(uses: NetworkUses): NetworkStructs {
  const keepAlive: unknown[] = [uses];
  const networks = networksOf(uses);
  const list = networkList(networks, keepAlive);
  const controls = structs(uses.controls, sizeOfControlUse, (view, at, control) => {
    const { network, hints, ...use } = control;
    const networkIndex = networks.indexOf(network);
    const own = structs(hints, sizeOfControlHint, (hintView, hintAt, { image, ...hint }) => {
      writeControlHint(hintView, hintAt, { ...hint, image: bytesOf(image) });
    });
    keepAlive.push(own);
    writeControlUse(view, at, { ...use, networkIndex, hints: bytesOf(own) });
  });
  const ipAdapters = structs(uses.ipAdapters, sizeOfIpAdapterUse, (view, at, use) => {
    const scales = new Float32Array(use.scales);
    keepAlive.push(scales);
    writeIpAdapterUse(view, at, {
      ...use,
      adapterIndex: networks.indexOf(use.adapter),
      encoderIndex: networks.indexOf(use.encoder),
      scales: bytesOf(scales),
      patches: bytesOf(use.patches),
    });
  });
  keepAlive.push(list, controls, ipAdapters);
  return {
    networks: bytesOf(list),
    controls: bytesOf(controls),
    ipAdapters: bytesOf(ipAdapters),
    keepAlive,
  };
}

/** An upscaler as a struct, and the arrays that it points to. */
export function upscalerStruct(network: UpscalerNetwork) {
  const keepAlive: unknown[] = [];
  const bytes = networkList([network], keepAlive);
  keepAlive.push(bytes);
  return { bytes, keepAlive };
}

// --- internal ---

function networkList(networks: readonly Network[], keepAlive: unknown[]): Uint8Array {
  return structs(networks, sizeOfNetwork, (view, at, network) => {
    const { files, names, keepAlive: own } = networkBytes(network.weights);
    const config = configBytes(network);
    keepAlive.push(...own, config);
    writeNetwork(view, at, { kind: network.kind, config: bytesOf(config), files, names });
  });
}

function structs<T>(
  items: readonly T[],
  size: number,
  write: (view: DataView, at: number, item: T) => void,
): Uint8Array {
  const bytes = new Uint8Array(items.length * size);
  const view = new DataView(bytes.buffer);
  for (const [i, item] of items.entries()) write(view, i * size, item);
  return bytes;
}

/** The struct of its kind. */
function configBytes(network: Network): Uint8Array {
  switch (network.kind) {
    case "controlnet": {
      const { config } = network;
      return struct(sizeOfControlNetConfig, (view) =>
        writeControlNetConfig(view, 0, {
          ...config,
          unet: unetConfigOf(config.unet, config.timeIdCount),
          embeddingLevelCount: config.embeddingChannels.length,
        }),
      );
    }
    case "t2i_adapter": {
      const { config } = network;
      return struct(sizeOfT2iAdapterConfig, (view) =>
        writeT2iAdapterConfig(view, 0, { ...config, levelCount: config.channels.length }),
      );
    }
    case "clip_vision":
      return struct(sizeOfClipVisionConfig, (view) =>
        writeClipVisionConfig(view, 0, network.config),
      );
    case "upscaler":
      return struct(sizeOfUpscalerConfig, (view) => writeUpscalerConfig(view, 0, network.config));
    case "ip_adapter":
      return struct(sizeOfIpAdapterConfig, (view) => writeIpAdapterConfig(view, 0, network.config));
  }
}

function struct(size: number, write: (view: DataView) => void): Uint8Array {
  return structs([null], size, (view) => write(view));
}
