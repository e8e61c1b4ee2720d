/**
 * The image encoder of an IP-Adapter: the one that is named, or one that lies beside the adapter as
 * the hub and ComfyUI lay them out. The width of what the adapter reads decides which one it is.
 */
import { readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { BasedXLError, escaped } from "../errors.ts";
import type { WantedFolder } from "../hub.ts";
import { isFolder } from "../paths.ts";
import { openClipVision, parseClipVisionConfig } from "./clip-vision.ts";
import type {
  ClipVisionConfig,
  ClipVisionNetwork,
  IpAdapterConfig,
  IpAdapterNetwork,
} from "./network.ts";

interface EncoderOptions {
  /** The absolute path of a folder or file; undefined for one beside the adapter. */
  named: string | undefined;
  /** How messages name what names it. */
  flag: string;
}

/** Rejects with "bad-model" or "bad-weights". */
export async function encoderOf(
  adapter: IpAdapterNetwork,
  { named, flag }: EncoderOptions,
): Promise<ClipVisionNetwork> {
  if (named !== undefined) {
    const encoder = await openClipVision(named);
    const width = widthOf(adapter.config, encoder.config);
    if (width === adapter.config.embedSize) return encoder;
    throw misfit(adapter, `${escaped(named, 300)} gives ${width}`, flag);
  }
  const seen: string[] = [];
  for (const path of candidatesOf(adapter.path)) {
    const encoder = await openClipVision(path);
    const width = widthOf(adapter.config, encoder.config);
    if (width === adapter.config.embedSize) return encoder;
    seen.push(`${escaped(path, 300)} gives ${width}`);
  }
  throw misfit(adapter, seen.length > 0 ? seen.join(", ") : "there is none beside it", flag);
}

/** Where the hub keeps the encoder of an adapter at the path `file` in its repository. */
export function wantedEncoder(adapter: IpAdapterNetwork, file: string): WantedFolder {
  const { config } = adapter;
  return {
    folders: [...new Set(encoderFolders(file))],
    fits: (json) => {
      try {
        return widthOf(config, parseClipVisionConfig("config.json", json)) === config.embedSize;
      } catch {
        return false;
      }
    },
  };
}

// --- internal ---

/** Channels that this kind of adapter reads of it. */
function widthOf({ projection }: IpAdapterConfig, encoder: ClipVisionConfig): number {
  return projection === "plain" ? encoder.projectionSize : encoder.hiddenSize;
}

/** By what the adapter reads: its embedding, or its states. */
const encoderNames = {
  plain: { 1024: "ViT-H/14", 1280: "ViT-bigG/14", 768: "ViT-L/14" },
  plus: { 1280: "ViT-H/14", 1664: "ViT-bigG/14", 1024: "ViT-L/14" },
} as const satisfies Record<IpAdapterNetwork["config"]["projection"], Record<number, string>>;

function misfit({ path, config }: IpAdapterNetwork, found: string, flag: string): BasedXLError {
  const { projection, embedSize } = config;
  const known: Readonly<Record<number, string | undefined>> = encoderNames[projection];
  const name = known[embedSize];
  const what = name === undefined ? "an image encoder" : `the image encoder CLIP ${name}`;
  return new BasedXLError(
    "bad-model",
    `${escaped(path, 300)} needs ${what}, which gives ${embedSize} channels, and ${found}: name \
that encoder's folder by ${flag}.`,
  );
}

/** Folders as the hub has them; ComfyUI: files in clip_vision. */
function candidatesOf(adapterPath: string): string[] {
  const files = filesIn(join(dirname(dirname(adapterPath)), "clip_vision"));
  return [...encoderFolders(adapterPath).filter(isFolder), ...files];
}

/** image_encoder, also in models or sdxl_models, beside the adapter or above. */
function encoderFolders(adapterPath: string): string[] {
  const own = dirname(adapterPath);
  return [own, dirname(own)].flatMap((folder) => [
    join(folder, "image_encoder"),
    join(folder, "sdxl_models/image_encoder"),
    join(folder, "models/image_encoder"),
  ]);
}

function filesIn(folder: string): string[] {
  if (!isFolder(folder)) return [];
  const names = readdirSync(folder).filter((name) => name.endsWith(".safetensors"));
  return names.sort().map((name) => join(folder, name));
}
