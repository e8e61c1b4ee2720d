/**
 * What nodes make of images and masks before anything is sampled. Between nodes pixels have 8 bits.
 * Source: ComfyUI, nodes.py and comfy_extras/nodes_mask.py.
 */
import type { Size } from "../../../image/encoder.ts";
import { type RawImage, readImage } from "../../../image/read.ts";
import { cropped, extended, inverted, type Sides } from "../../../image/transform.ts";
import type { Capabilities } from "../../capabilities.ts";
import type { Upscaling } from "../../upscaling.ts";
import { colouredPixels } from "../image-bytes.ts";
import { maskOf } from "../mask-bytes.ts";
import { resampled, type UpscaleMethod } from "../resample.ts";
import { upscalerOf } from "./enlargement.ts";
import type { Link } from "./graph.ts";
import type { GraphReader } from "./graph-reader.ts";

export interface PixelSources {
  /** The bytes of an image by the name that a node has for it; null where there is none. */
  read(name: string): Promise<Uint8Array | null>;
  /** Enlarges by an upscaler of the lists; null where workers have the models. */
  upscaling: Pick<Upscaling, "upscale"> | null;
  lists: Pick<Capabilities, "upscalers">;
  /** The most pixels that an image may have. */
  pixelsMax: number;
}

/** Images are RGB, masks grey; each node is computed once. */
export class NodePixels {
  private readonly made = new Map<string, Promise<RawImage[]>>();

  constructor(
    private readonly graph: GraphReader,
    private readonly sources: PixelSources,
  ) {}

  /** Rejects with `PromptRefused`. */
  async at([id, slot]: Link): Promise<RawImage> {
    let made = this.made.get(id);
    if (made === undefined) {
      made = this.make(id);
      this.made.set(id, made);
    }
    return (await made)[slot]!;
  }

  // --- internal ---

  private async make(id: string): Promise<RawImage[]> {
    switch (this.graph.type(id)) {
      case "LoadImage": {
        const bytes = await this.file(id);
        return await Promise.all([this.rgb(id, bytes), this.channel(id, bytes, "alpha")]);
      }
      case "LoadImageMask": {
        const bytes = await this.file(id);
        return [await this.channel(id, bytes, this.graph.text(id, "channel") as Channel)];
      }
      case "ImageScale":
        return [await this.scaled(id)];
      case "ImageScaleBy": {
        const { width, height, ...image } = await this.input(id, "image");
        const by = this.graph.number(id, "scale_by");
        const size = { width: rounded(width * by), height: rounded(height * by) };
        return [await this.resized(id, { width, height, ...image }, size)];
      }
      case "ImageScaleToTotalPixels": {
        const image = await this.input(id, "image");
        const total = Math.trunc(this.graph.number(id, "megapixels") * 2 ** 20);
        const by = Math.sqrt(total / (image.width * image.height));
        const size = { width: rounded(image.width * by), height: rounded(image.height * by) };
        return [await this.resized(id, image, size)];
      }
      case "ImageUpscaleWithModel":
        return [await this.upscaled(id)];
      case "ImagePadForOutpaint":
        return await this.padded(id);
      case "ImageInvert":
        return [inverted(await this.input(id, "image"))];
      case "InvertMask":
        return [inverted(await this.input(id, "mask"))];
      case "MaskToImage":
        return [coloured(await this.input(id, "mask"))];
      case "ImageToMask": {
        const channel = ["red", "green", "blue"].indexOf(this.graph.text(id, "channel"));
        return [channelOf(await this.input(id, "image"), channel)];
      }
      default:
        // An image that this prompt generates.
        return this.graph.refuse(id, "samples", "what is decoded cannot be sampled again");
    }
  }

  private async input(id: string, name: string): Promise<RawImage> {
    return await this.at(this.graph.link(id, name));
  }

  private async file(id: string): Promise<Uint8Array> {
    const bytes = await this.sources.read(this.graph.text(id, "image"));
    return bytes ?? this.graph.refuse(id, "image", "there is no such image");
  }

  private async rgb(id: string, bytes: Uint8Array): Promise<RawImage> {
    try {
      return await colouredPixels(bytes, this.sources.pixelsMax);
    } catch {
      return this.graph.refuse(id, "image", this.unreadable());
    }
  }

  private async channel(id: string, bytes: Uint8Array, from: Channel): Promise<RawImage> {
    const mask = await maskOf(bytes, { from, isInverted: from === "alpha" });
    if (mask === null) return this.graph.refuse(id, "image", this.unreadable());
    return await readImage(mask, { name: "image", channels: 1, background: "#000000" });
  }

  private unreadable(): string {
    return `must be an image of at most ${this.sources.pixelsMax / 1e6} million pixels`;
  }

  private async scaled(id: string): Promise<RawImage> {
    const image = await this.input(id, "image");
    const [width, height] = [this.graph.number(id, "width"), this.graph.number(id, "height")];
    if (width === 0 && height === 0) return image;
    const size = {
      width: width || Math.max(1, rounded((image.width * height) / image.height)),
      height: height || Math.max(1, rounded((image.height * width) / image.width)),
    };
    const isCut = this.graph.text(id, "crop") === "center";
    return await this.resized(id, isCut ? centred(image, size) : image, size);
  }

  private async resized(id: string, image: RawImage, size: Size): Promise<RawImage> {
    this.checkSize(id, size);
    const method = this.graph.text(id, "upscale_method") as UpscaleMethod;
    return await resampled(image, size, method);
  }

  private async upscaled(id: string): Promise<RawImage> {
    const image = await this.input(id, "image");
    const { name, scale } = upscalerOf(this.graph, id, this.sources.lists);
    const size = { width: image.width * scale, height: image.height * scale };
    this.checkSize(id, size);
    const { upscaling } = this.sources;
    if (upscaling !== null) return await upscaling.upscale(image, { upscaler: name, size });
    const why = "this server has workers, which enlarge what they sample alone";
    return this.graph.refuse(id, "upscale_model", why);
  }

  private async padded(id: string): Promise<RawImage[]> {
    const image = await this.input(id, "image");
    const side = (name: string) => this.graph.number(id, name);
    const sides = {
      ...{ left: side("left"), top: side("top"), right: side("right"), bottom: side("bottom") },
    };
    const width = image.width + sides.left + sides.right;
    const height = image.height + sides.top + sides.bottom;
    this.checkSize(id, { width, height });
    const mask = feathered(image, sides, side("feathering"));
    return [extended(image, sides, grey), extended(mask, sides, 255)];
  }

  private checkSize(id: string, { width, height }: Size): void {
    if (Math.min(width, height) >= 1 && width * height <= this.sources.pixelsMax) return;
    const most = `${this.sources.pixelsMax / 1e6} million pixels`;
    this.graph.refuse(id, "image", `would be ${width}x${height}; 1 to ${most} are possible`);
  }
}

// --- internal ---

type Channel = "alpha" | "red" | "green" | "blue";

/** 0.5 of 255. */
const grey = 128;

function coloured({ pixels, ...size }: RawImage): RawImage {
  const rgb = new Uint8Array(3 * pixels.length);
  for (const [at, value] of pixels.entries()) rgb.fill(value, 3 * at, 3 * at + 3);
  return { ...size, pixels: rgb };
}

function channelOf({ pixels, ...size }: RawImage, channel: number): RawImage {
  const count = size.width * size.height;
  return {
    ...size,
    pixels: Uint8Array.from({ length: count }, (_, at) => pixels[3 * at + channel]!),
  };
}

/** The middle that has the shape of `size`. */
function centred(image: RawImage, size: Size): RawImage {
  const [shape, wanted] = [image.width / image.height, size.width / size.height];
  const across = (image.width - image.width * (wanted / shape)) / 2;
  const down = (image.height - image.height * (shape / wanted)) / 2;
  const left = shape > wanted ? rounded(across) : 0;
  const top = shape < wanted ? rounded(down) : 0;
  const [width, height] = [image.width - 2 * left, image.height - 2 * top];
  return cropped(image, { left, top, width, height });
}

/** As Python rounds, half to even. */
function rounded(value: number): number {
  const nearest = Math.round(value);
  return nearest - value === 0.5 && nearest % 2 !== 0 ? nearest - 1 : nearest;
}

/** The mask of an image that is enlarged: it fades in from the sides where pixels are added. */
function feathered({ width, height }: Size, sides: Sides, feathering: number): RawImage {
  const pixels = new Uint8Array(width * height);
  const isSoft = feathering > 0 && 2 * feathering < Math.min(width, height);
  if (!isSoft) return { pixels, width, height };
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const distance = Math.min(
        sides.top === 0 ? height : row,
        sides.bottom === 0 ? height : height - row,
        sides.left === 0 ? width : column,
        sides.right === 0 ? width : width - column,
      );
      const share = Math.max(0, feathering - distance) / feathering;
      pixels[row * width + column] = Math.round(255 * share * share);
    }
  }
  return { pixels, width, height };
}
