/**
 * Plans without a session: the library maps a model's files and checks every tensor's name and
 * shape against the config, and reads no weights.
 */
import { ptr } from "bun:ffi";
import * as v from "valibot";
import { BasedXLError } from "../errors.ts";
import { type HandleOptions, type NativeModel, smallestOptions, withOptions } from "./handle.ts";
import { lastError, library } from "./library.ts";

const count = v.pipe(v.number(), v.integer(), v.minValue(0));

/** An operation of zig/backend/op_trace.zig; sizes are those of its input. */
const operationSchema = v.object({
  op: v.string(),
  batch: count,
  rows: count,
  width: count,
  /** Channels. */
  in: count,
  out: count,
  kernel: count,
  stride: count,
  padding: count,
  /** Factor of nearest-neighbour upsampling. */
  scale: count,
  /** Halo rows from other patches. */
  halos: count,
  /** Tokens that an attention reads, in all chunks. */
  keys: count,
  chunks: count,
  heads: count,
  groups: count,
  causal: v.boolean(),
  bias: v.boolean(),
  residual: v.boolean(),
  /** A product of integers, on GPUs. */
  int8: v.boolean(),
  activation: v.string(),
});

const stages = ["load", "text", "denoise", "decode", "encode", "adapt", "upscale"] as const;

const entrySchema = v.object({
  place: v.object({
    stage: v.picklist(stages),
    /** Of the pass's networks, counted from 1; 0 for the model's own. */
    network: count,
    /** Whether it is done anew in each step, or tile. */
    in_step: v.boolean(),
  }),
  operation: operationSchema,
  /** Cost of one operation; it occurs `count` times. */
  cost: v.object({ flops: count, bytes: count, launches: count }),
  count,
});

const rankSchema = v.object({
  index: count,
  /** Rows of the latent in the UNet. */
  rows: count,
  /** Size of the arena: the largest of `peaks`, the needs of the stages. */
  scratch_bytes: count,
  peaks: v.object({ text: count, encode: count, denoise: count, decode: count, upscale: count }),
  /** Part of the arena: receive buffers of the exchange. */
  exchange_bytes: count,
  workspace_bytes: count,
  partial_bytes: count,
  operations: v.array(entrySchema),
});

const partSchema = v.object({ name: v.string(), weight_bytes: count });

const passSchema = v.object({
  name: v.picklist(["image", "upscale", "second"]),
  /** Beside the model, with their bytes on each device. */
  networks: v.array(partSchema),
  /** Of an upscaler, in all ranks together; else 0. */
  tile_count: count,
  ranks: v.array(rankSchema),
});

const planSchema = v.object({
  weight_bytes: count,
  /** Of these, in 8 bits. */
  weight_f8_bytes: count,
  /** Of these, of products in int8, on GPUs. */
  weight_int8_bytes: count,
  /** On the CPU, beside what files have. */
  copied_bytes: count,
  adapter_bytes: count,
  components: v.array(partSchema),
  /** The first image first. */
  passes: v.array(passSchema),
});

export type Operation = v.InferOutput<typeof operationSchema>;
export type PlannedOperation = v.InferOutput<typeof entrySchema>;
export type RankPlan = v.InferOutput<typeof rankSchema>;
export type PassPlan = v.InferOutput<typeof passSchema>;
export type Plan = v.InferOutput<typeof planSchema>;

/** The plan of a session. Throws `BasedXLError` for a wrong model or size. */
export function planOf(options: HandleOptions): Plan {
  const text = new Uint8Array(textBytesMax);
  const length = writePlan(options, text);
  if (length > text.length) throw new BasedXLError("internal", `A plan of ${length} bytes.`);
  return v.parse(planSchema, JSON.parse(new TextDecoder().decode(text.subarray(0, length))));
}

/**
 * Throws `BasedXLError` "bad-model" with the library's sentence where the model would not load,
 * "setup" without the library. `latentUnit`: rows and columns of the smallest latent.
 */
export function checkModel(model: NativeModel, latentUnit: number): void {
  // A model with a plan loads; the plan itself is not read.
  writePlan(smallestOptions(model, latentUnit), new Uint8Array(1));
}

// --- internal ---

/**
 * Writes the plan of a session to `text` as far as it fits, and returns its length in bytes. Throws
 * `BasedXLError` "bad-model" with the library's sentence for a wrong model or size.
 */
function writePlan(options: HandleOptions, text: Uint8Array): number {
  const length = Number(
    withOptions(options, (struct) => library().bxl_plan(struct, ptr(text), BigInt(text.length))),
  );
  if (length === 0) throw new BasedXLError("bad-model", lastError(null) || "There is no plan.");
  return length;
}

/** Sixteen ranks with some 200 kinds of operations of 400 bytes. */
const textBytesMax = 4 << 20;
