/**
 * --compat with images to start from and masks, against the tools themselves
 * (tests/fixtures/compat-inputs.*, made by tests/reference/make_compat_inputs.py): ComfyUI's nodes
 * and A1111's processing on the golden model, from pixels to latents.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { everyNth } from "../../src/bench/support/references.ts";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import type { GenerateRequest } from "../../src/pipeline.ts";
import type { Compat } from "../../src/settings/names.ts";
import { relativeL2 } from "../support/compare.ts";
import { formulaImage, formulaMask } from "../support/formula-input.ts";
import { inpaintingModel } from "../support/inpainting-model.ts";
import { KeptPipelines } from "../support/kept-pipelines.ts";
import { measured } from "../support/measured.ts";
import { removeCopies } from "../support/model-copy.ts";

setDefaultTimeout(60_000);

const fixtures = join(import.meta.dir, "../fixtures");
// Those of every sampler may be compared by hand.
const recorded = process.env.COMPAT_INPUT_RUNS ?? join(fixtures, "compat-inputs");
const notes: { stride: number; runs: string[] } = JSON.parse(
  readFileSync(`${recorded}.json`, "utf8"),
);
const tensors = readSafetensors(`${recorded}.safetensors`);

/** Of a run: a tensor, or a row of that of all. */
function expectedOf(name: string, index: number): Float32Array {
  const own = tensors.get(name)?.data as Float32Array | undefined;
  if (own !== undefined) return own;
  const all = tensors.get("latents")!.data as Float32Array;
  const count = all.length / notes.runs.length;
  return all.subarray(index * count, (index + 1) * count);
}

const models = {
  four: await openModelFolder(join(fixtures, "golden/model")),
  nine: await inpaintingModel(),
};
const pipelines = new KeptPipelines();
afterAll(async () => {
  await pipelines.close();
  removeCopies();
});

/** One for each model and number of ranks. */
async function latentsOf(
  kind: keyof typeof models,
  request: GenerateRequest,
  rankCount = 1,
): Promise<Float32Array> {
  const devices = { device: "cpu", rankCount } as const;
  const options = { model: models[kind], devices, first: request };
  const pipeline = await pipelines.of(`${kind} ${rankCount}`, options);
  return (await pipeline.generate(request)).latents!;
}

/** The request that a name of the notes stands for. */
function requestOf(name: string): GenerateRequest {
  const [tool = "", what = "", sampler = "", schedule = "", steps, strength] = name.split(" ");
  const compat = tool as Compat;
  return {
    compat,
    scheduler: sampler.replaceAll("_", compat === "a1111" ? " " : "_") as "euler",
    ...(schedule !== "-" && { sigmas: schedule as "karras" }),
    // The reference is ComfyUI on a CPU.
    ...(compat === "comfyui" && { stepRng: "cpu" }),
    ...{ prompt: "a red circle", negativePrompt: "", guidanceScale: 5, seeds: [7n] },
    ...{ stepCount: Number(steps), strength: Number(strength), wantLatents: true },
    image: formulaImage,
    ...(what !== "image" && { mask: formulaMask }),
    ...settings[what],
  };
}

/** What is asked for beside the mask. */
const settings: Record<string, GenerateRequest> = {
  blank: { maskContent: "grey", maskGrow: 6 },
  fill: { maskContent: "fill", maskBlur: 4 },
  noise: { maskContent: "latent-noise", maskBlur: 4 },
  nothing: { maskContent: "latent-nothing", maskBlur: 4 },
  part: {
    ...{ maskContent: "fill", maskBlur: 4, maskArea: "masked", maskPadding: 5 },
    ...{ width: 64, height: 64 },
  },
};

/** f32 on both sides, whose sums are in another order. */
const tolerance = 1e-4;

test.each(notes.runs.map((name, index) => ({ name, index })))("$name", async ({ name, index }) => {
  const kind = name.includes(" nine ") ? "nine" : "four";
  const request = requestOf(name);
  const latents = everyNth(await latentsOf(kind, request), notes.stride);
  const error = relativeL2(latents, expectedOf(name, index));
  measured(`compat ${name}`, error, tolerance);
  expect(error).toBeLessThan(tolerance);
});

describe.each([2, 3, 4])("%d ranks", (rankCount) => {
  test.each(["comfyui", "a1111"] as const)("mix masks as one with %s", async (compat) => {
    const request: GenerateRequest = {
      ...{ compat, prompt: "a red circle", image: formulaImage, mask: formulaMask },
      ...{ width: 32, height: 128, resize: "stretch", stepCount: 2, strength: 0.9, seeds: [5n] },
      ...{ guidanceScale: 1, syncMode: "full_sync", wantLatents: true },
    };
    const one = await latentsOf("nine", request);
    const several = await latentsOf("nine", request, rankCount);
    expect(relativeL2(several, one)).toBeLessThan(1e-5);
  });
});

test("an image of a batch is masked as alone", async () => {
  const request: GenerateRequest = {
    ...{ compat: "a1111", prompt: "a red circle", image: formulaImage, mask: formulaMask },
    ...{ maskContent: "latent-noise", stepCount: 4, strength: 0.8, wantLatents: true },
  };
  const together = await latentsOf("four", { ...request, seeds: [1n, 2n], batchSize: 2 });
  const alone = await latentsOf("four", { ...request, seeds: [2n] });
  expect(relativeL2(together.slice(alone.length), alone)).toBeLessThan(1e-5);
});
