/**
 * FLOP of a step and bytes that a rank receives in it, from a UNet's config alone. The sums follow
 * `zig/model/unet.zig` layer by layer; tests/native/scaling.test.ts compares them with the counted
 * bytes of a run. A change in what a layer exchanges must be repeated here.
 */
import type { UnetConfig } from "../models/config.ts";
import { promptTokenCount } from "../prompt/tokenizer.ts";

/** The config values that determine the sizes. */
export type UnetShape = Pick<
  UnetConfig,
  | "inChannels"
  | "outChannels"
  | "blockOutChannels"
  | "layersPerBlock"
  | "downTransformerLayers"
  | "midBlock"
  | "midTransformerLayers"
  | "upTransformerLayers"
  | "crossAttentionDim"
  | "normGroups"
>;

/** SDXL base, so that the table needs no model. */
export const sdxl: UnetShape = {
  inChannels: 4,
  outChannels: 4,
  blockOutChannels: [320, 640, 1280],
  layersPerBlock: [2, 2, 2],
  downTransformerLayers: [[], [2, 2], [10, 10]],
  midBlock: "cross_attention",
  midTransformerLayers: 10,
  upTransformerLayers: [[10, 10, 10], [2, 2, 2], []],
  crossAttentionDim: 2048,
  normGroups: 32,
};

/** Sizes for one sample (one branch of one image) and one step, in elements, not bytes. */
interface UnetSizes {
  /** Keys and values of all self-attentions, over the whole image. */
  keysValues: number;
  /** One halo row of every convolution that exchanges halos, as BasedXL sends it. */
  haloRow: number;
  /** The same with rows taken after upsampling, at twice the width, as DistriFusion sends it. */
  haloRowUpsampled: number;
  /** Mean and mean of squares of every group of every norm. */
  statistics: number;
  /** The model's output. */
  output: number;
  /** Multiply-adds, as DistriFusion counts them (prompt included). */
  macs: { convolution: number; linear: number; selfAttention: number; crossAttention: number };
}

/** Sizes for a latent of `rows` x `width`, both multiples of 2^(levels - 1). */
export function unetSizes(c: UnetShape, rows: number, width: number): UnetSizes {
  const walk = new Walk(c, rows, width);
  const channels = c.blockOutChannels;
  const last = channels.length - 1;
  const at = (level: number) => channels[Math.min(last, Math.max(0, level))]!;

  walk.convolution(c.inChannels, at(0), 0, "local");
  for (let level = 0; level <= last; level++) {
    for (let i = 0; i < c.layersPerBlock[level]!; i++) {
      walk.resnet(i === 0 ? at(level - 1) : at(level), at(level), level);
      walk.transformer(at(level), c.downTransformerLayers[level]![i] ?? 0, level);
    }
    if (level < last) walk.convolution(at(level), at(level), level + 1, "halves");
  }
  if (c.midBlock !== "none") walk.resnet(at(last), at(last), last);
  if (c.midBlock === "cross_attention") {
    walk.transformer(at(last), c.midTransformerLayers, last);
    walk.resnet(at(last), at(last), last);
  }
  for (let level = last; level >= 0; level--) {
    const count = c.layersPerBlock[level]! + 1;
    for (let i = 0; i < count; i++) {
      const below = i === 0 ? at(level + 1) : at(level);
      // The last skip of a level came from the level above, or from the first convolution.
      const skip = i + 1 === count ? at(level - 1) : at(level);
      walk.resnet(below + skip, at(level), level);
      walk.transformer(at(level), c.upTransformerLayers[last - level]![i] ?? 0, level);
    }
    if (level > 0) walk.convolution(at(level), at(level), level - 1, "doubles");
  }
  walk.norm();
  walk.convolution(at(0), c.outChannels, 0, "same");
  return walk.sizes;
}

/** The work of one rank: one patch of rows of one CFG group. */
export interface Share {
  /** Rows of all patches, or proportional numbers. */
  patches: readonly number[];
  patch: number;
  /** 2 where the guidance branches are split over ranks. */
  branchGroups: 1 | 2;
  branches: 1 | 2;
  /** Images per batch. */
  images?: number;
  /** "all-gather": both rows of every peer, taken after upsampling, as DistriFusion does. */
  halos: "neighbours" | "all-gather";
}

/** Elements or bytes that a rank receives from others in one step. */
export interface Traffic {
  keysValues: number;
  halos: number;
  statistics: number;
  gather: number;
}

/** Elements that one rank receives in a step that reads all exchanged tensors. */
export function receivedElements(sizes: UnetSizes, share: Share): Traffic {
  const { patches, patch, branchGroups, branches, halos } = share;
  const samples = branches * (share.images ?? 1);
  const batch = samples / branchGroups;
  const others = patches.length - 1;
  const total = patches.reduce((sum, rows) => sum + rows, 0);
  const own = patches[patch]! / total;
  const neighbours = Number(patch > 0) + Number(patch < others);
  const halo =
    halos === "neighbours" ? neighbours * sizes.haloRow : 2 * others * sizes.haloRowUpsampled;
  return {
    keysValues: batch * sizes.keysValues * (1 - own),
    halos: batch * halo,
    statistics: batch * sizes.statistics * others,
    gather: sizes.output * (samples - batch * own),
  };
}

/** Bytes per element. */
interface ElementBytes {
  activation: number;
  statistic: number;
}

export const bytes16: ElementBytes = { activation: 2, statistic: 4 };
/** Bytes per element of CPU ranks: f32, and statistics as f64. */
export const bytesCpu: ElementBytes = { activation: 4, statistic: 8 };

export function bytesOf(elements: Traffic, { activation, statistic }: ElementBytes): Traffic {
  return {
    keysValues: elements.keysValues * activation,
    halos: elements.halos * activation,
    statistics: elements.statistics * statistic,
    gather: elements.gather * activation,
  };
}

/** Bytes per second in one direction, for the prediction. */
export const links = { NVLink: 450e9, "PCIe 5": 55e9 } as const;

/**
 * Milliseconds of one step. Asynchronous: transfers overlap with the computation, so the longer of
 * both counts; the all-gather of outputs ends every step. Synchronous: the sum of both.
 */
export function stepMs(options: {
  /** Computation of one rank, including the loss of efficiency at small shapes. */
  computeMs: number;
  received: Traffic;
  bytesPerSecond: number;
  synchronous: boolean;
}): number {
  const { computeMs, received, bytesPerSecond, synchronous } = options;
  const layersMs = (1e3 * layerBytes(received)) / bytesPerSecond;
  const gatherMs = (1e3 * received.gather) / bytesPerSecond;
  return (synchronous ? computeMs + layersMs : Math.max(computeMs, layersMs)) + gatherMs;
}

/** All bytes that layers exchange: everything except the all-gather of outputs. */
export function layerBytes({ keysValues, halos, statistics }: Traffic): number {
  return keysValues + halos + statistics;
}

// --- internal ---

class Walk {
  readonly sizes: UnetSizes;

  constructor(
    private readonly c: UnetShape,
    private readonly rows: number,
    private readonly width: number,
  ) {
    this.sizes = {
      keysValues: 0,
      haloRow: 0,
      haloRowUpsampled: 0,
      statistics: 0,
      output: c.outChannels * rows * width,
      macs: { convolution: 0, linear: 0, selfAttention: 0, crossAttention: 0 },
    };
  }

  /** A 3x3 convolution to `level`. The first one is local: every rank has the whole latent. */
  convolution(
    inChannels: number,
    outChannels: number,
    level: number,
    kind: "local" | "same" | "halves" | "doubles",
  ): void {
    const { sizes } = this;
    sizes.macs.convolution += 9 * inChannels * outChannels * this.positions(level);
    if (kind === "local") return;
    const inLevel = { same: level, halves: level - 1, doubles: level + 1 }[kind];
    sizes.haloRow += inChannels * this.widthAt(inLevel);
    const upsampledLevel = kind === "doubles" ? level : inLevel;
    sizes.haloRowUpsampled += inChannels * this.widthAt(upsampledLevel);
  }

  norm(): void {
    this.sizes.statistics += 2 * this.c.normGroups;
  }

  resnet(inChannels: number, outChannels: number, level: number): void {
    this.norm();
    this.convolution(inChannels, outChannels, level, "same");
    this.norm();
    this.convolution(outChannels, outChannels, level, "same");
    if (inChannels === outChannels) return;
    this.sizes.macs.convolution += inChannels * outChannels * this.positions(level);
  }

  /** Adds nothing for 0 layers: the block has no attention. */
  transformer(channels: number, layerCount: number, level: number): void {
    if (layerCount === 0) return;
    const { macs } = this.sizes;
    const positions = this.positions(level);
    const square = channels * channels * positions;
    this.norm();
    // Projections in and out; per layer 4 matrices of self-attention, 2 of cross-attention and 12
    // of the gated feed-forward, then keys and values of the prompt.
    const prompt = 2 * promptTokenCount * this.c.crossAttentionDim * channels;
    macs.linear += 2 * square + layerCount * (18 * square + prompt);
    macs.selfAttention += layerCount * 2 * positions ** 2 * channels;
    macs.crossAttention += layerCount * 2 * positions * promptTokenCount * channels;
    this.sizes.keysValues += layerCount * 2 * positions * channels;
  }

  private positions(level: number): number {
    return (this.rows * this.width) / 4 ** level;
  }

  private widthAt(level: number): number {
    return this.width / 2 ** level;
  }
}
