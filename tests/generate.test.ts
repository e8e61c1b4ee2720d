/**
 * What `generate` makes of a request: tokens, rows and session calls, against a session that only
 * takes notes.
 */
import { describe, expect, test } from "bun:test";
import { BasedXLError } from "../src/errors.ts";
import { type GenerateRequest, generate, medianMs } from "../src/generate.ts";
import { fakeModel, fakeOpener } from "./support/fake-model.ts";

function request(changes: Partial<GenerateRequest> = {}): GenerateRequest {
  return {
    model: fakeModel(),
    prompt: "a red house",
    negativePrompt: null,
    seed: 7n,
    guidanceScale: 5,
    stepCount: 4,
    width: 64,
    height: 96,
    scheduler: "euler",
    useKarrasSigmas: undefined,
    timestepSpacing: undefined,
    rankCount: 1,
    threadCount: 0,
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
  expect(opened?.guidance).toBe(true);
  const [picture] = log.pictures;
  expect(picture).toMatchObject({ width: 64, height: 96, seed: 7n, guidanceScale: 5 });
  expect(picture?.rows).toHaveLength(4);
  expect(picture?.prompt.ids.slice(0, 5)).toEqual(new Int32Array([0, 1, 2, 3, 999]));
  expect(picture?.prompt.endIndex2).toBe(4);
  expect(log.closed).toBe(1);
  expect(layouts).toEqual(["1 used"]);
  expect(result.pixels).toHaveLength(64 * 96 * 3);
  expect(result.latents).toHaveLength(4 * 8 * 12);
  expect(result.timings.stepMs).toEqual([1, 1, 1, 1]);
  expect(result.timings.loadMs).toBeGreaterThanOrEqual(0);
  expect(result.warnings).toEqual([]);
});

describe("negative prompt", () => {
  const negativeOf = async (changes: Partial<GenerateRequest>) => {
    const { log, openSession } = fakeOpener();
    await generate(request(changes), { openSession });
    return log.pictures[0]?.negative;
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
    expect(log.pictures[0]?.negative).toBeNull();
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

  test("say how many ranks are used and why not all", async () => {
    expect(await warningsOf({ rankCount: 4 })).toEqual([
      "4 ranks were asked for, 2 used: in this version ranks share the two guidance branches only.",
    ]);
    expect(await warningsOf({ rankCount: 2, guidanceScale: 0.5 })).toEqual([
      "2 ranks were asked for, 1 used: in this version without guidance there is one branch, and " +
        "ranks share branches only.",
    ]);
    expect(await warningsOf({ rankCount: 2 })).toEqual([]);
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
    expect(between.log.pictures).toHaveLength(0);
    expect(between.log.closed).toBe(1);
  });
});

test("medianMs", () => {
  expect(medianMs([])).toBe(0);
  expect(medianMs([3, 100, 2])).toBe(3);
  expect(medianMs([4, 1, 2, 100])).toBe(3);
});
