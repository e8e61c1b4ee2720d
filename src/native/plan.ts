/**
 * What a session would need and do, without opening a device or reading a weight: the memory of
 * every rank, and every operation of a image with one step. See zig/session/plan_report.zig.
 */
import { ptr } from "bun:ffi";
import * as v from "valibot";
import { BasedXLError } from "../errors.ts";
import { type HandleOptions, withOptions } from "./handle.ts";
import { lastError, library } from "./library.ts";

const count = v.pipe(v.number(), v.integer(), v.minValue(0));

/** As zig/backend/op_trace.zig has it; sizes are those of the operation's own input. */
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
  /** Times that rows and width are enlarged. */
  scale: count,
  /** Rows that come from other patches. */
  halos: count,
  /** Tokens that an attention reads, of all chunks together. */
  keys: count,
  chunks: count,
  heads: count,
  groups: count,
  causal: v.boolean(),
  bias: v.boolean(),
  residual: v.boolean(),
  activation: v.string(),
});

const entrySchema = v.object({
  stage: v.picklist(["load", "text", "denoise", "decode", "encode"]),
  operation: operationSchema,
  /** Of one; how often it comes is `count`. */
  cost: v.object({ flops: count, bytes: count, launches: count }),
  count,
});

const rankSchema = v.object({
  index: count,
  /** Of the latent, in the UNet. */
  rows: count,
  /** The arena: the largest of `peaks`, which are what each stage needs. */
  scratch_bytes: count,
  peaks: v.object({ text: count, denoise: count, decode: count }),
  /** Of the arena: what patches keep for each other. */
  exchange_bytes: count,
  workspace_bytes: count,
  partial_bytes: count,
  operations: v.array(entrySchema),
});

const planSchema = v.object({ weight_bytes: count, ranks: v.array(rankSchema) });

export type Operation = v.InferOutput<typeof operationSchema>;
export type PlannedOperation = v.InferOutput<typeof entrySchema>;
export type RankPlan = v.InferOutput<typeof rankSchema>;
export type Plan = v.InferOutput<typeof planSchema>;

/** Throws `BasedXLError` where the model or the sizes will not do. */
export function planOf(options: HandleOptions): Plan {
  const text = new Uint8Array(textBytesMax);
  const length = Number(
    withOptions(options, (struct) => library().bxl_plan(struct, ptr(text), BigInt(text.length))),
  );
  if (length === 0) throw new BasedXLError("bad-model", lastError(null) || "There is no plan.");
  if (length > text.length) throw new BasedXLError("internal", `A plan of ${length} bytes.`);
  return v.parse(planSchema, JSON.parse(new TextDecoder().decode(text.subarray(0, length))));
}

// --- internal ---

/** Sixteen ranks with some 200 kinds of operations of 400 bytes. */
const textBytesMax = 4 << 20;
