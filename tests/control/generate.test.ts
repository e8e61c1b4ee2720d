/**
 * What `generate` makes of a request: tokens, rows and session calls, against a session that only
 * takes notes.
 */
import { describe, expect, test } from "bun:test";
import { BasedXLError } from "../../src/errors.ts";
import {
  type DrawingProgress,
  type Drawn,
  type GenerateRequest,
  generate,
  medianMs,
} from "../../src/pipeline/generate.ts";
import { fakeModel, fakeOpener } from "../support/fake-model.ts";

function request(changes: Partial<GenerateRequest> = {}): GenerateRequest {
  return {
    model: fakeModel(),
    prompt: "a red house",
    negativePrompt: null,
    seeds: [7n],
    batchSize: 1,
    guidanceScale: 5,
    stepCount: 4,
    width: 64,
    height: 96,
    scheduler: "euler",
    useKarrasSigmas: undefined,
    timestepSpacing: undefined,
    rankCount: 1,
    threadCount: 0,
    splitBatch: true,
    syncMode: "corrected_async_gn",
    warmupStepCount: 1,
    wantLatents: false,
    ...changes,
  };
}

const words = (count: number) => Array.from({ length: count }, (_, i) => `w${i}`).join(" ");

test("the session gets the request, is closed, and its result is passed on", async () => {
  const { log, openSession } = fakeOpener();
  const layouts: string[] = [];
  const result = await generate(request({ wantLatents: true }), {
    openSession,
    onLayout: (layout) => layouts.push(layout),
  });
  const [opened] = log.opened;
  expect(opened).toMatchObject({ rankCount: 1, threadCount: 0, width: 64, height: 96 });
  expect(opened).toMatchObject({ guidance: true, splitBatch: true, imageCount: 1 });
  const [image] = log.images;
  expect(image).toMatchObject({ width: 64, height: 96, seeds: [7n], guidanceScale: 5 });
  expect(image).toMatchObject({ splitBatch: true, syncMode: "corrected_async_gn" });
  expect(image?.warmupSteps).toBe(1);
  expect(image?.rows).toHaveLength(4);
  expect(image?.prompt.ids.slice(0, 5)).toEqual(new Int32Array([0, 1, 2, 3, 999]));
  expect(image?.prompt.endIndex2).toBe(4);
  expect(log.closed).toBe(1);
  expect(layouts).toEqual(["1 rank = both guidance branches"]);
  expect(result.images).toEqual([{ seed: 7n, pixels: new Uint8Array(64 * 96 * 3).fill(7) }]);
  expect(result.latents).toHaveLength(4 * 8 * 12);
  expect(result.latentShape).toEqual([1, 4, 12, 8]);
  expect(result.timings.stepMs).toEqual([1, 1, 1, 1]);
  expect(result.timings.loadMs).toBeGreaterThanOrEqual(0);
  expect(result.warnings).toEqual([]);
});

describe("several images", () => {
  const seeds = [7n, 8n, 9n, 10n, 11n];

  test("are drawn in batches by one session, in the order of their seeds", async () => {
    const { log, openSession } = fakeOpener();
    const asked = request({ seeds, batchSize: 2, wantLatents: true });
    const result = await generate(asked, { openSession });
    expect(log.opened.map(({ imageCount }) => imageCount)).toEqual([2]);
    expect(log.images.map((image) => image.seeds)).toEqual([[7n, 8n], [9n, 10n], [11n]]);
    expect(log.closed).toBe(1);
    expect(result.images.map(({ seed, pixels }) => [seed, pixels[0]])).toEqual([
      [7n, 7],
      [8n, 8],
      [9n, 9],
      [10n, 10],
      [11n, 11],
    ]);
    expect(result.latentShape).toEqual([5, 4, 12, 8]);
    const firsts = seeds.map((_, index) => result.latents?.[index * 4 * 12 * 8]);
    expect(firsts).toEqual([7, 8, 9, 10, 11]);
    expect(result.latents).toHaveLength(5 * 4 * 12 * 8);
    expect(result.timings).toMatchObject({ textMs: 3, denoiseMs: 6, decodeMs: 9 });
    expect(result.timings.stepMs).toHaveLength(3 * 4);
  });

  test("are handed over one by one, and then not kept", async () => {
    const { log, openSession } = fakeOpener();
    const taken: [Drawn["seed"], batches: number][] = [];
    const onImage = async ({ seed }: Drawn) => {
      await Bun.sleep(1);
      taken.push([seed, log.images.length]);
    };
    const asked = request({ seeds: seeds.slice(0, 3), batchSize: 2 });
    const { images } = await generate(asked, { openSession, onImage });
    expect(taken).toEqual([
      [7n, 1],
      [8n, 1],
      [9n, 2],
    ]);
    expect(images).toEqual([]);
  });

  test("are counted from 1 in the progress", async () => {
    const { openSession } = fakeOpener();
    const seen: DrawingProgress["images"][] = [];
    const onProgress = ({ stage, images }: DrawingProgress) => {
      if (stage === "decode") seen.push(images);
    };
    await generate(request({ seeds: seeds.slice(0, 3), batchSize: 2 }), {
      openSession,
      onProgress,
    });
    expect(seen).toEqual([
      { first: 1, last: 2, count: 3 },
      { first: 3, last: 3, count: 3 },
    ]);
  });

  test("end where the signal stops them or one cannot be taken", async () => {
    const stopped = fakeOpener();
    const controller = new AbortController();
    const stopping = generate(request({ seeds, batchSize: 2 }), {
      openSession: stopped.openSession,
      onImage: ({ seed }) => {
        if (seed === 9n) controller.abort();
      },
      signal: controller.signal,
    });
    await expect(stopping).rejects.toMatchObject({ code: "cancelled" });
    expect(stopped.log.images).toHaveLength(2);
    expect(stopped.log.closed).toBe(1);

    const full = fakeOpener();
    const error = new BasedXLError("io", "The disk is full.");
    const onImage = () => Promise.reject(error);
    const failing = generate(request({ seeds }), { openSession: full.openSession, onImage });
    await expect(failing).rejects.toBe(error);
    expect(full.log.images).toHaveLength(1);
    expect(full.log.closed).toBe(1);
  });
});

describe("negative prompt", () => {
  const negativeOf = async (changes: Partial<GenerateRequest>) => {
    const { log, openSession } = fakeOpener();
    await generate(request(changes), { openSession });
    return log.images[0]?.negative;
  };

  test("none asked for: zeros where the model wants them", async () => {
    expect(await negativeOf({})).toBeNull();
  });

  test("none asked for: the empty prompt where it does not", async () => {
    const model = fakeModel({ forceZerosForEmptyPrompt: false });
    expect((await negativeOf({ model }))?.endIndex2).toBe(1);
  });

  test('an explicit "" is encoded', async () => {
    expect((await negativeOf({ negativePrompt: "" }))?.endIndex2).toBe(1);
  });

  test("words are encoded", async () => {
    expect((await negativeOf({ negativePrompt: "bad hands" }))?.endIndex2).toBe(3);
  });

  test("without guidance there is none, and no warning about its length", async () => {
    const { log, openSession } = fakeOpener();
    const negativePrompt = words(80);
    const result = await generate(request({ guidanceScale: 1, negativePrompt }), { openSession });
    expect(log.opened[0]?.guidance).toBe(false);
    expect(log.images[0]?.negative).toBeNull();
    expect(result.warnings).toEqual([]);
  });
});

describe("warnings", () => {
  const warningsOf = async (changes: Partial<GenerateRequest>) => {
    const early: string[] = [];
    const { openSession } = fakeOpener();
    const onWarning = (warning: string) => void early.push(warning);
    const { warnings } = await generate(request(changes), { openSession, onWarning });
    expect(early).toEqual(warnings);
    return warnings;
  };

  test("name the text of a prompt that did not fit", async () => {
    expect(await warningsOf({ prompt: words(77), negativePrompt: words(76) })).toEqual([
      'The prompt is longer than 77 tokens; left out: "w75 w76".',
      'The negative prompt is longer than 77 tokens; left out: "w75".',
    ]);
  });

  test("are none about ranks: each of them works", async () => {
    expect(await warningsOf({ rankCount: 6 })).toEqual([]);
    expect(await warningsOf({ rankCount: 3, guidanceScale: 0.5 })).toEqual([]);
  });
});

describe("failures", () => {
  test("what the sampler cannot do is said before a session opens", async () => {
    const { log, openSession } = fakeOpener();
    const asked = request({ scheduler: "ddim", useKarrasSigmas: true });
    await expect(generate(asked, { openSession })).rejects.toThrow(BasedXLError);
    expect(log.opened).toHaveLength(0);
  });

  test("an error while drawing closes the session and comes through", async () => {
    const error = new BasedXLError("not-finite", "The UNet gave a value that is not finite.");
    const { log, openSession } = fakeOpener(error);
    await expect(generate(request(), { openSession })).rejects.toBe(error);
    expect(log.closed).toBe(1);
  });

  test("an aborted signal stops before loading, and between loading and drawing", async () => {
    const before = fakeOpener();
    const signal = AbortSignal.abort();
    const first = generate(request(), { openSession: before.openSession, signal });
    await expect(first).rejects.toMatchObject({ code: "cancelled" });
    expect(before.log.opened).toHaveLength(0);

    const between = fakeOpener();
    const controller = new AbortController();
    const second = generate(request(), {
      openSession: between.openSession,
      onLayout: () => controller.abort(),
      signal: controller.signal,
    });
    await expect(second).rejects.toMatchObject({ code: "cancelled" });
    expect(between.log.images).toHaveLength(0);
    expect(between.log.closed).toBe(1);
  });
});

test("medianMs", () => {
  expect(medianMs([])).toBe(0);
  expect(medianMs([3, 100, 2])).toBe(3);
  expect(medianMs([4, 1, 2, 100])).toBe(3);
});
