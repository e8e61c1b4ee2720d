/**
 * The patches part of `bench gpu`: the time of one patch of several, measured alone on one GPU. It
 * reads zeros instead of the peers' tensors and sends nothing; `bench scaling --patches FILE` adds
 * the transfers by the formula.
 */
import { readFileSync } from "node:fs";
import * as v from "valibot";
import { BasedXLError } from "../errors.ts";
import type { Model } from "../models/model.ts";
import type { GpuOptions } from "../native/handle.ts";
import { layoutOf } from "../pipeline/layout.ts";
import { open, timesOf, warmImage, warmupsDefault } from "./gpu-models.ts";

const positive = v.pipe(v.number(), v.minValue(0));

const rowSchema = v.object({
  side: v.number(),
  ranks: v.number(),
  /** 2 where the guidance branches are split over ranks. */
  branchGroups: v.picklist([1, 2]),
  /** Latent rows of every patch, and the index of the timed one. */
  patches: v.array(v.number()),
  patch: v.number(),
  stepMs: positive,
  decodeMs: positive,
});

const fileSchema = v.object({
  gpu: v.string(),
  /** True: emulated, so the times are meaningless. */
  isEmulated: v.boolean(),
  model: v.string(),
  dtype: v.string(),
  unet: v.object({
    inChannels: v.number(),
    outChannels: v.number(),
    blockOutChannels: v.array(v.number()),
    layersPerBlock: v.array(v.number()),
    downTransformerLayers: v.array(v.array(v.number())),
    midBlock: v.picklist(["cross_attention", "resnet", "none"]),
    midTransformerLayers: v.number(),
    upTransformerLayers: v.array(v.array(v.number())),
    crossAttentionDim: v.number(),
    normGroups: v.number(),
  }),
  vaeFactor: v.number(),
  rows: v.array(rowSchema),
});

export type PatchRow = v.InferOutput<typeof rowSchema>;
export type PatchFile = v.InferOutput<typeof fileSchema>;

/** Reads gpu-patches.json. Throws "bad-option" with the problem of the file. */
export function readPatchFile(path: string): PatchFile {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    const why = (error as Error).message;
    throw new BasedXLError("bad-option", `--patches ${path} cannot be read: ${why}.`);
  }
  const parsed = v.safeParse(fileSchema, json);
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  throw new BasedXLError(
    "bad-option",
    `--patches ${path} is not what \`bench gpu\` writes as gpu-patches.json: \
${v.getDotPath(issue) ?? "it"}: ${issue.message}.`,
  );
}

/** Times a middle patch of each layout; yields row by row. */
export async function* timePatches(
  model: Model,
  sides: readonly number[],
  patches: readonly number[],
  gpu: GpuOptions,
  steps: number,
  warmups = warmupsDefault,
): AsyncGenerator<PatchRow> {
  for (const side of sides) {
    for (const { ranks, splitBatch } of layouts(patches)) {
      const latentRows = side / model.vaeFactor;
      const rowUnit = model.sizeMultiple / model.vaeFactor;
      const patchCount = splitBatch ? ranks / 2 : ranks;
      if (latentRows / rowUnit < patchCount) continue;
      const shares = { rankCount: ranks, guidance: true, splitBatch, latentRows, rowUnit };
      const { patches, branchGroups } = layoutOf(shares);
      const patch = patchCount >> 1;
      const session = await open(model, side, ranks, splitBatch, gpu);
      try {
        const testHooks = ranks === 1 ? {} : { onlyRank: patch };
        const change = { splitBatch, testHooks, warmups };
        const image = await warmImage(session, model, side, steps, change);
        const { stepMs, decodeMs } = timesOf(image);
        yield { side, ranks, branchGroups, patches, patch, stepMs, decodeMs };
      } finally {
        await session.close();
      }
    }
  }
}

// --- internal ---

/** Layouts: patches of both branches, and the branches split over twice as many ranks. */
function layouts(patches: readonly number[]): { ranks: number; splitBatch: boolean }[] {
  const largest = Math.max(...patches);
  return [
    ...patches.map((ranks) => ({ ranks, splitBatch: false })),
    ...patches
      .filter((count) => 2 * count <= Math.max(2, largest))
      .map((count) => ({ ranks: 2 * count, splitBatch: true })),
  ];
}
