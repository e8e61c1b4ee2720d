/**
 * The names that settings choose from. What the native library knows too comes from its generated
 * bindings, so that no list is kept twice; this file imports nothing else but the
 * samplers and their vocabulary, and everybody above `samplers/` may import it.
 */
import {
  AttentionKind,
  Compression as CompressionValues,
  Compute,
  type DType,
  Rng as RngValues,
  SyncMode as SyncModeValues,
  TransportKind,
} from "../native/abi.ts";

export {
  comfyKinds,
  firstSigmas,
  type PredictionType,
  predictionTypes,
  type SigmaKind,
  sigmaKinds,
  type TimestepSpacing,
  timestepRoundings,
  timestepSpacings,
} from "../samplers/names.ts";
export { type Compat, compatLines, compatNames } from "./compat.ts";
export { type Scheduler, samplerNamed, schedulers } from "./samplers.ts";

/** What a patch reads of the others after warm-up (zig/patch/sync_mode.zig); the default first. */
export type SyncMode = keyof typeof SyncModeValues;
export const syncModes = namesOf(SyncModeValues);

/** What each mode trades, short enough for one line of --help. */
export const syncModeTexts: Record<SyncMode, string> = {
  corrected_async_gn: "a step old, norms corrected",
  stale_gn: "a step old, the norms too",
  sync_gn: "a step old, but waits for norms",
  separate_gn: "a step old, norms of own rows",
  full_sync: "of this step: exact, but waits",
  no_sync: "of warm-up: no exchange, seams",
};

/** The same for --help: names and texts in columns. */
export const syncModeLines = syncModes
  .map((name) => name.padEnd(2 + Math.max(...syncModes.map(({ length }) => length))))
  .map((cell, index) => cell + syncModeTexts[syncModes[index]!])
  .join("\n");

/** How an image to start from is brought to the size that is generated; the default first. */
export const resizeModes = ["cover", "fit", "stretch"] as const;

/** What of it is computed where it has a mask; the default first. */
export const maskAreas = ["whole", "masked"] as const;

/** What the masked part starts from. */
export const maskContents = ["original", "fill", "latent-noise", "latent-nothing", "grey"] as const;
export type MaskContent = (typeof maskContents)[number];

/** How keys and values travel between patches; the default first. */
export const compressions = namesOf(CompressionValues);

/** Random generators: torch's on the CPU, or on a CUDA device. */
export type Rng = keyof typeof RngValues;
export const rngs = namesOf(RngValues);

/** Whether a seed makes the noise of one image, or of a batch. */
export const noiseOrders = ["image", "batch"] as const;
export type NoiseOrder = (typeof noiseOrders)[number];

/** The generator of the noise in steps. */
export const stepRngs = ["same", ...rngs] as const;
export type StepRng = (typeof stepRngs)[number];

/** How the noise of steps is made of random numbers. */
export const noiseSamplers = ["auto", "generator", "brownian", "brownian_gpu"] as const;
export type NoiseSampler = (typeof noiseSamplers)[number];

/** Who computes attention on GPUs. */
export type Attention = keyof typeof AttentionKind;
export const attentions = namesOf(AttentionKind);

/** How GPUs reach each other's memory. */
export type Transport = keyof typeof TransportKind;
export const transports = namesOf(TransportKind);

/** Types of activations and products; int8 is of the UNet's linear layers alone. */
export const dtypes = ["f32", "f16", "bf16", "int8"] as const satisfies readonly (
  | keyof typeof DType
  | keyof typeof Compute
)[];
export type Dtype = (typeof dtypes)[number];

/** Types of the CPU's products; its activations are f32. */
export type CpuDtype = keyof typeof Compute;
export const cpuDtypes = namesOf(Compute);

/** Types of activations and weights on GPUs. */
export type GpuDtype = Exclude<Dtype, "f32" | "int8">;

export const devices = ["auto", "cpu", "cuda", "cuda-emulated"] as const;
export type Device = (typeof devices)[number];

/** How prompts are read: as diffusers does, or with the weights and chunks of these tools. */
export const promptSyntaxes = ["plain", "a1111", "comfyui"] as const;
export type PromptSyntax = (typeof promptSyntaxes)[number];

/** How A1111 applies weights, by its own names. */
export const emphases = ["original", "no_norm", "ignore", "none"] as const;
export type Emphasis = (typeof emphases)[number];

/** What an empty negative prompt is. */
export const emptyNegatives = ["auto", "zeros", "encode"] as const;
export type EmptyNegative = (typeof emptyNegatives)[number];

/** How much steps take from earlier ones. */
export const qualities = ["exact", "high", "balanced", "fast"] as const;
export type Quality = (typeof qualities)[number];

/** Few-step recipes that --recipe takes; what each sets is in adapters/recipes.ts. */
export const recipeNames = [
  "lightning-4",
  "lightning-8",
  "hyper-8",
  "dmd2-4",
  "lcm",
  "turbo",
] as const;
export type RecipeName = (typeof recipeNames)[number];

// --- internal ---

function namesOf<Name extends string>(values: Readonly<Record<Name, number>>): readonly Name[] {
  return Object.keys(values) as Name[];
}
