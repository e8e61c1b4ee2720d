/**
 * The pipeline against a fake session that records its calls: tokens, steps, order of jobs,
 * cancellation, and the events that callers receive.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { BasedXLError } from "../../src/errors.ts";
import type { Model } from "../../src/models/model.ts";
import type { TokenPair } from "../../src/native/handle.ts";
import { batchesOf, type PlannedImage } from "../../src/pipeline/request.ts";
import type { ImageRequest } from "../../src/pipeline/session.ts";
import { medianMs } from "../../src/pipeline/timings.ts";
import {
  type GenerateOptions,
  type GenerateRequest,
  Pipeline,
  type PipelineEvent,
  preparePipeline,
} from "../../src/pipeline.ts";
import { fakeModel, fakeOpener, type SessionLog } from "../support/fake-model.ts";
import { refusal } from "../support/refusal.ts";

function request(changes: Partial<GenerateRequest> = {}): GenerateRequest {
  const size = { width: 64, height: 96, stepCount: 4, scheduler: "euler" } as const;
  return { prompt: "a red house", seeds: [7n], warmupSteps: 1, ...size, ...changes };
}

interface Given {
  model?: Model;
  rankCount?: number;
  first?: GenerateRequest;
  error?: Error;
}

async function open({ model = fakeModel(), rankCount = 1, first, error }: Given = {}) {
  const { log, ...dependencies } = fakeOpener(error);
  const options = { model, devices: { rankCount }, first: first ?? request() };
  return { log, pipeline: await Pipeline.open(options, dependencies) };
}

/** One job in a pipeline that is opened for it. */
async function once(asked: GenerateRequest, options: GenerateOptions = {}, given: Given = {}) {
  const { log, pipeline } = await open({ ...given, first: asked });
  const result = await pipeline.generate(asked, options);
  await pipeline.close();
  return { log, result };
}

const promptsOf = (image?: ImageRequest) => [image?.prompt ?? []].flat();
const negativesOf = (image?: ImageRequest) => [image?.negative ?? null].flat();

const words = (count: number) => Array.from({ length: count }, (_, i) => `w${i}`).join(" ");

test("the session gets the request, and its result is passed on", async () => {
  const events: PipelineEvent[] = [];
  const asked = request({ wantLatents: true });
  const { log, result } = await once(asked, { onEvent: (event) => void events.push(event) });
  const [opened] = log.opened;
  expect(opened).toMatchObject({ rankCount: 1, threadCount: 0, width: 64, height: 96 });
  expect(opened).toMatchObject({ guidance: true, splitBatch: true, imageCount: 1 });
  const [image] = log.images;
  expect(image).toMatchObject({ width: 64, height: 96, seeds: [7n], guidanceScale: [5] });
  expect(image).toMatchObject({ splitBatch: true, syncMode: "corrected_async_gn" });
  expect(image?.warmupSteps).toBe(1);
  expect(image?.steps).toHaveLength(4);
  expect(promptsOf(image)[0]?.ids.slice(0, 5)).toEqual(new Int32Array([0, 1, 2, 3, 999]));
  expect(promptsOf(image)[0]?.endIndex2).toBe(4);
  expect(log.closed).toBe(1);
  const pixels = new Uint8Array(64 * 96 * 3).fill(7);
  expect(result.images).toHaveLength(1);
  expect(result.images).toMatchObject([{ index: 0, seed: 7n, width: 64, height: 96, pixels }]);
  expect(result.latents).toHaveLength(4 * 8 * 12);
  expect(result.latentShape).toEqual([1, 4, 12, 8]);
  expect(result.timings.stepMs).toEqual([1, 1, 1, 1]);
  expect(result.layout).toBe("1 rank = both guidance branches");
  expect(result.warnings).toEqual([]);
  const types = events.map(({ type }) => type);
  expect(types).toEqual(["start", "progress", "progress", "progress", "image"]);
  expect(events[0]).toMatchObject({ imageCount: 1, layout: result.layout });
  expect(new Set(events.map(({ jobId }) => jobId)).size).toBe(1);
});

test.each([
  ["exact", false],
  ["high", true],
  ["fast", true],
] as const)("quality %s: convolutions with fewer multiplications: %s", async (quality, is) => {
  // Apart from what steps reuse.
  const { log } = await once(request({ quality, deepCache: "1" }));
  expect(log.images.map(({ winograd }) => winograd)).toEqual([is]);
});

test("a pipeline stays open, and its model's defaults complete requests", async () => {
  const defaults = { width: 128, height: 64, steps: 6, guidanceScale: 1 };
  const { log, pipeline } = await open({ model: fakeModel({ defaults }) });
  await pipeline.generate({ prompt: "a" });
  await pipeline.generate({ prompt: "b", stepCount: 2 });
  expect(log.opened).toHaveLength(1);
  expect(log.closed).toBe(0);
  const [first, second] = log.images;
  expect(first).toMatchObject({ width: 128, height: 64, guidanceScale: [1], negative: null });
  expect(first?.steps).toHaveLength(6);
  expect(first?.warmupSteps).toBe(4);
  expect(second?.steps).toHaveLength(2);
  expect(second?.warmupSteps).toBe(2);
  expect(first?.seeds).toHaveLength(1);
  expect(first?.seeds).not.toEqual(second?.seeds);
});

test("what was planned before loading is what runs, and nothing is opened until then", async () => {
  const { log, ...dependencies } = fakeOpener();
  const first = { prompt: "a", width: 64, height: 96 };
  const devices = { rankCount: 2 };
  const prepared = await preparePipeline({ model: fakeModel(), devices, first }, dependencies);
  const { plan, rankCount, isBundledModel } = prepared;
  expect(prepared.devices).toMatchObject({ device: "cpu", rankCount: 2, gpu: null });
  expect({ rankCount, isBundledModel }).toEqual({ rankCount: 2, isBundledModel: false });
  expect(plan.batches[0]?.layout.text).toBe("2 ranks = 2 guidance branches");
  expect(log.opened).toHaveLength(0);
  const pipeline = await Pipeline.load(prepared, {}, dependencies);
  for (const request of [first, plan]) {
    const { images } = await pipeline.generate(request);
    expect(images.map(({ seed }) => seed)).toEqual([plan.settings.seed]);
  }
  const together = { model: fakeModel(), devices, first, processCount: 3 };
  expect((await preparePipeline(together, dependencies)).rankCount).toBe(6);
});

describe("several images", () => {
  const seeds = [7n, 8n, 9n, 10n, 11n];

  test("are generated in batches, in the order of their seeds", async () => {
    const { log, result } = await once(request({ seeds, batchSize: 2, wantLatents: true }));
    expect(log.opened.map(({ imageCount }) => imageCount)).toEqual([2]);
    expect(log.images.map((image) => image.seeds)).toEqual([[7n, 8n], [9n, 10n], [11n]]);
    expect(result.images.map(({ index, seed, pixels }) => [index, seed, pixels[0]])).toEqual([
      [0, 7n, 7],
      [1, 8n, 8],
      [2, 9n, 9],
      [3, 10n, 10],
      [4, 11n, 11],
    ]);
    expect(result.latentShape).toEqual([5, 4, 12, 8]);
    const firsts = seeds.map((_, index) => result.latents?.[index * 4 * 12 * 8]);
    expect(firsts).toEqual([7, 8, 9, 10, 11]);
    expect(result.latents).toHaveLength(5 * 4 * 12 * 8);
    expect(result.timings).toMatchObject({ textMs: 3, denoiseMs: 6, decodeMs: 9 });
    expect(result.timings.stepMs).toHaveLength(3 * 4);
  });

  test("are handed over one by one, the next batch waits, and none need be kept", async () => {
    const { log, pipeline } = await open();
    const taken: [bigint, batches: number][] = [];
    const { images } = await pipeline.generate(request({ seeds: [7n, 8n, 9n], batchSize: 2 }), {
      keepImages: false,
      async onEvent(event) {
        if (event.type !== "image") return;
        await Bun.sleep(1);
        taken.push([event.seed, log.images.length]);
      },
    });
    expect(taken).toEqual([
      [7n, 1],
      [8n, 1],
      [9n, 2],
    ]);
    expect(images).toEqual([]);
  });

  test("are counted from 1 in the progress", async () => {
    const seen: object[] = [];
    await once(request({ seeds: [7n, 8n, 9n], batchSize: 2 }), {
      onEvent(event) {
        if (event.type === "progress" && event.stage === "decode") seen.push(event.images);
      },
    });
    expect(seen).toEqual([
      { first: 1, last: 2, count: 3 },
      { first: 3, last: 3, count: 3 },
    ]);
  });

  test("may each have a prompt, a negative prompt and a guidance scale", async () => {
    const { log } = await once(
      request({
        seeds: [1n, 2n, 3n],
        prompt: ["a", "b c", "d e f"],
        negativePrompt: ["x", null, "y z"],
        guidanceScale: [3, 7, 1],
        batchSize: 3,
      }),
    );
    const asked = log.images.map((image) => [
      image.guidanceScale,
      promptsOf(image).map((tokens) => tokens.endIndex2),
      negativesOf(image).map((tokens) => tokens?.endIndex2),
    ]);
    expect(asked).toEqual([
      [
        [3, 7],
        [2, 3],
        [2, undefined],
      ],
      [[1], [4], [undefined]],
    ]);
  });

  test("in batches are those of the request, in order, those apart that differ in shape", () => {
    const loraSets = [[], []];
    const ofLength = (chunks: number) => {
      const ids = new Int32Array(77 * chunks);
      return { ids, ids2: ids, endIndex2: 1 };
    };
    const ofLengths = [
      { prompts: [ofLength(1)], negatives: [null], stepSets: null },
      { prompts: [ofLength(1)], negatives: [ofLength(1)], stepSets: null },
      { prompts: [ofLength(2)], negatives: [ofLength(1)], stepSets: null },
      { prompts: [ofLength(2)], negatives: [ofLength(3)], stepSets: null },
      { prompts: [ofLength(1), ofLength(1)], negatives: [null, null], stepSets: [0, 1] },
      { prompts: [ofLength(1), ofLength(1)], negatives: [null, null], stepSets: [1, 0] },
    ];
    const tokensOfLengths = ofLengths.flatMap((tokens) =>
      [true, false].map((isGuided) => ({ ...tokens, weights: [1], isGuided })),
    );
    const images: fc.Arbitrary<PlannedImage[]> = fc.array(
      fc.record({
        seed: fc.bigInt({ min: 0n, max: 9n }),
        noisePlace: fc.constant(0),
        variationSeed: fc.constant(null),
        prompt: fc.constantFrom("a", "b"),
        negativePrompt: fc.constantFrom(null, "", "c"),
        guidanceScale: fc.constantFrom(0, 1, 1.5, 7),
        loras: fc.constantFrom<PlannedImage["loras"]>(...loraSets),
        prompt2: fc.constant(undefined),
        negativePrompt2: fc.constant(undefined),
        tokens: fc.constantFrom(...tokensOfLengths),
      }),
      { minLength: 1, maxLength: 20 },
    );
    fc.assert(
      fc.property(images, fc.integer({ min: 1, max: 8 }), (all, batchSize) => {
        const batches = batchesOf(all, batchSize);
        expect(batches.flatMap((batch) => batch.images)).toEqual(all);
        let next = 1;
        for (const { images, range, guidance } of batches) {
          expect(images.length).toBeLessThanOrEqual(batchSize);
          expect(range).toEqual({ first: next, last: next + images.length - 1, count: all.length });
          next += images.length;
          for (const { tokens } of images) expect(tokens.isGuided).toBe(guidance);
          for (const { loras } of images) expect(loras).toBe(images[0]!.loras);
          const lengths = (pairs: (TokenPair | null)[]) =>
            new Set(pairs.flatMap((pair) => pair?.ids.length ?? []));
          expect(lengths(images.flatMap(({ tokens }) => tokens.prompts)).size).toBe(1);
          const negatives = lengths(images.flatMap(({ tokens }) => tokens.negatives));
          expect(negatives.size).toBeLessThanOrEqual(1);
          for (const { tokens } of images) {
            expect(tokens.stepSets).toEqual(images[0]!.tokens.stepSets);
          }
        }
      }),
    );
  });
});

describe("jobs", () => {
  test("of concurrent calls run one at a time, in order", async () => {
    const { log, pipeline } = await open();
    const order: string[] = [];
    const jobs = ["a", "b", "c"].map((id, index) =>
      pipeline.generate(request({ seeds: [BigInt(index)] }), {
        id,
        onEvent: ({ type, jobId }) => {
          if (type !== "progress") order.push(`${jobId} ${type}`);
        },
      }),
    );
    await Promise.all(jobs);
    expect(log.images.map(({ seeds }) => seeds)).toEqual([[0n], [1n], [2n]]);
    expect(order).toEqual(["a start", "a image", "b start", "b image", "c start", "c image"]);
  });

  test("can be cancelled by name or signal, while they run and while they wait", async () => {
    const { log, pipeline } = await open();
    const controller = new AbortController();
    const running = pipeline.generate(request({ seeds: [1n] }), {
      id: "running",
      onEvent: ({ type }) => void (type === "progress" && pipeline.cancel("running")),
    });
    const named = pipeline.generate(request({ seeds: [2n] }), { id: "named" });
    const signalled = pipeline.generate(request({ seeds: [3n] }), { signal: controller.signal });
    const last = pipeline.generate(request({ seeds: [4n] }));
    const settled = Promise.allSettled([running, named, signalled]);
    expect(pipeline.cancel("named")).toBe(true);
    expect(pipeline.cancel("unknown")).toBe(false);
    controller.abort();
    const reason = { code: "cancelled", sessionLost: false };
    for (const outcome of await settled) {
      expect(outcome).toMatchObject({ status: "rejected", reason });
    }
    expect((await last).images[0]?.seed).toBe(4n);
    expect(log.images.map(({ seeds }) => seeds)).toEqual([[1n], [4n]]);
    expect(pipeline.cancel("named")).toBe(false);
  });

  test("whatever is cancelled, the others run in order", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.boolean(), { minLength: 1, maxLength: 8 }), async (drops) => {
        const { log, pipeline } = await open();
        const jobs = drops.map((_, index) =>
          pipeline.generate(request({ seeds: [BigInt(index)] }), { id: String(index) }),
        );
        const settled = Promise.allSettled(jobs);
        for (const [index, drop] of drops.entries()) if (drop) pipeline.cancel(String(index));
        const outcomes = (await settled).map(({ status }) => status === "rejected");
        expect(outcomes).toEqual(drops);
        const kept = [...drops.keys()].filter((index) => !drops[index]).map((i) => [BigInt(i)]);
        expect(log.images.map(({ seeds }) => seeds)).toEqual(kept);
        await pipeline.close();
      }),
      { numRuns: 30 },
    );
  });

  test("need names of their own", async () => {
    const { pipeline } = await open();
    const first = pipeline.generate(request(), { id: "a" });
    await expect(pipeline.generate(request(), { id: "a" })).rejects.toThrow("id a already");
    await first;
    await pipeline.generate(request(), { id: "a" });
  });

  test("end where their handler fails, and the next one runs", async () => {
    const { log, pipeline } = await open();
    const error = new BasedXLError("io", "The disk is full.");
    const onEvent = ({ type }: PipelineEvent) =>
      type === "image" ? Promise.reject(error) : undefined;
    const failing = pipeline.generate(request({ seeds: [1n, 2n] }), { onEvent });
    await expect(failing).rejects.toBe(error);
    expect(log.images).toHaveLength(1);
    await pipeline.generate(request({ seeds: [3n] }));
    expect(log.images.at(-1)?.seeds).toEqual([3n]);
  });

  test("end when the pipeline is closed, which waits for them", async () => {
    const { log, pipeline } = await open();
    const running = pipeline.generate(request());
    const waiting = pipeline.generate(request());
    const settled = Promise.allSettled([running, waiting]);
    await Promise.all([pipeline.close(), pipeline.close()]);
    for (const outcome of await settled) {
      expect(outcome).toMatchObject({ status: "rejected", reason: { code: "cancelled" } });
    }
    expect(log.closed).toBe(1);
    const late = pipeline.generate(request());
    await expect(late).rejects.toMatchObject({ code: "cancelled", sessionLost: true });
  });
});

describe("negative prompt", () => {
  const negativeOf = async (changes: Partial<GenerateRequest>, model?: Model) =>
    negativesOf((await once(request(changes), {}, model ? { model } : {})).log.images[0])[0];

  test("none asked for: zeros where the model wants them", async () => {
    expect(await negativeOf({})).toBeNull();
  });

  test("none asked for: the empty prompt where it does not", async () => {
    const model = fakeModel({ forceZerosForEmptyPrompt: false });
    expect((await negativeOf({}, model))?.endIndex2).toBe(1);
  });

  test('an explicit "" is encoded', async () => {
    expect((await negativeOf({ negativePrompt: "" }))?.endIndex2).toBe(1);
  });

  test("words are encoded", async () => {
    expect((await negativeOf({ negativePrompt: "bad hands" }))?.endIndex2).toBe(3);
  });

  test("without guidance there is none, and no warning about its length", async () => {
    const negativePrompt = words(80);
    const { log, result } = await once(request({ guidanceScale: 1, negativePrompt }));
    expect(log.opened[0]?.guidance).toBe(false);
    expect(negativesOf(log.images[0])).toEqual([null]);
    expect(result.warnings).toEqual([
      "negativePrompt is not used: it needs guidanceScale above 1, not 1.",
    ]);
  });
});

describe("warnings", () => {
  const warningsOf = async (changes: Partial<GenerateRequest>, rankCount = 1) => {
    const early: string[] = [];
    const onEvent = (event: PipelineEvent) =>
      void (event.type === "warning" && early.push(event.message));
    const { result } = await once(request(changes), { onEvent }, { rankCount });
    expect(early).toEqual(result.warnings);
    return result.warnings;
  };

  test("name the text of a prompt that did not fit, once for all images", async () => {
    const seeds = [1n, 2n];
    expect(await warningsOf({ prompt: words(77), negativePrompt: words(76), seeds })).toEqual([
      'The prompt is longer than 77 tokens; left out: "w75 w76".',
      'The negative prompt is longer than 77 tokens; left out: "w75".',
    ]);
  });

  test("are none about ranks: each of them works", async () => {
    expect(await warningsOf({}, 6)).toEqual([]);
    expect(await warningsOf({ guidanceScale: 0.5 }, 3)).toEqual([]);
  });
});

describe("refusals", () => {
  test.each([
    [
      { width: 40 },
      "width must be a multiple of 32 from 32 to 8192 pixels for this model, not 40: the nearest " +
        "is 32.",
    ],
    [{ batchSize: 9 }, "batchSize must be a whole number from 1 to 8, not 9."],
    [{ warmupSteps: 5 }, "warmupSteps must be from 0 to the number of steps, 4, not 5."],
    [{ guidanceScale: Number.NaN }, "guidanceScale must be a number from 0 to 100, not NaN."],
    [{ seeds: [] }, "A request has 1 to 64 images, not 0."],
    [
      { seeds: [-1n] },
      "seed must be a whole number from 0 to 9223372036854775807 (2^63-1), not -1.",
    ],
    [
      { seeds: [1n, 2n], prompt: ["a", "b", "c"] },
      "The request has 2 seeds, and arrays of prompts or guidance scales with 3 entries: give " +
        "one value for all images, or one for each.",
    ],
  ])("%p", async (changes, sentence) => {
    const { log, pipeline } = await open();
    const refused = await refusal(() => pipeline.generate(request(changes)), "bad-option");
    expect(refused).toBe(sentence);
    expect(log.images).toHaveLength(0);
  });

  test("of names that there are not", async () => {
    const syncMode = "fast" as "no_sync";
    const { pipeline } = await open();
    expect(await refusal(() => pipeline.generate(request({ syncMode })), "bad-option")).toBe(
      'syncMode must be corrected_async_gn, stale_gn, sync_gn, separate_gn, full_sync or \
no_sync, not "fast".',
    );
  });

  const refusedAtOpen = async (given: Given): Promise<[unknown, SessionLog]> => {
    const { log, ...dependencies } = fakeOpener();
    const { first = request(), rankCount = 1 } = given;
    const opening = Pipeline.open(
      { model: fakeModel(), devices: { rankCount }, first },
      dependencies,
    );
    return [await opening.catch((error) => error), log];
  };

  test("of the first request come before a session opens", async () => {
    const karras = request({ scheduler: "ddim", useKarrasSigmas: true });
    const [sampler, samplerLog] = await refusedAtOpen({ first: karras });
    expect(sampler).toBeInstanceOf(BasedXLError);
    expect(samplerLog.opened).toHaveLength(0);
    const [ranks, ranksLog] = await refusedAtOpen({ rankCount: 5 });
    expect((ranks as Error).message).toContain("use 4 ranks");
    expect(ranksLog.opened).toHaveLength(0);
  });
});

describe("failures", () => {
  test("an error of the session comes through, and the pipeline can still be closed", async () => {
    const error = new BasedXLError("not-finite", "The UNet gave a value that is not finite.");
    const { log, pipeline } = await open({ error });
    await expect(pipeline.generate(request())).rejects.toBe(error);
    await pipeline.close();
    expect(log.closed).toBe(1);
  });

  test("an aborted signal stops a job before its session call, and between batches", async () => {
    const { log, pipeline } = await open();
    const before = pipeline.generate(request(), { signal: AbortSignal.abort() });
    await expect(before).rejects.toMatchObject({ code: "cancelled" });
    expect(log.images).toHaveLength(0);

    const controller = new AbortController();
    const between = pipeline.generate(request({ seeds: [7n, 8n, 9n], batchSize: 2 }), {
      onEvent: (event) => void (event.type === "image" && controller.abort()),
      signal: controller.signal,
    });
    await expect(between).rejects.toMatchObject({ code: "cancelled" });
    expect(log.images).toHaveLength(1);
  });
});

test("medianMs", () => {
  expect(medianMs([])).toBe(0);
  expect(medianMs([3, 100, 2])).toBe(3);
  expect(medianMs([4, 1, 2, 100])).toBe(3);
});
