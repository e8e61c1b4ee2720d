/**
 * Adapters in a session on the CPU: what they make against the model with the deltas merged into
 * its files, removal to the very bits, sets that are kept, memory, ranks, failures and cancelling.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, truncateSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BasedXLError } from "../../src/errors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import type { Adapter } from "../../src/native/adapters.ts";
import { smallestOptions } from "../../src/native/handle.ts";
import { planOf } from "../../src/native/plan.ts";
import type { Session } from "../../src/pipeline/session.ts";
import {
  encoderFile,
  folder,
  keysOf,
  randomAdapter,
  removeAdapters,
  scaled,
  unetFile,
} from "../support/adapter-file.ts";
import { relativeL2 } from "../support/compare.ts";
import { draw, latentsOf, requestOf, type Work, withSession } from "../support/draw.ts";
import { copyModel, removeCopies } from "../support/model-copy.ts";

// Many images, and the cores may be busy.
setDefaultTimeout(60_000);

afterAll(() => {
  removeAdapters();
  removeCopies();
});

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const work: Work = { model, width: 64, height: 96, threadCount: 2, stepCount: 2 };
const attention = keysOf(unetFile, /attn[12]\.to_(q|k|v|out\.0)\.weight$/);
const others = keysOf(unetFile, /(conv[12]|proj_in|ff\.net\.2)\.(weight|bias)$/);
const first = randomAdapter("first", { [unetFile]: [...attention, ...others] }, { seed: 1 });
const second = randomAdapter("second", { [unetFile]: attention.slice(8) }, { seed: 2, rank: 9 });
const text = randomAdapter(
  "text",
  { [encoderFile]: keysOf(encoderFile, /(q_proj|fc1)\.weight$/) },
  { seed: 3 },
);

async function image(session: Session, adapters: Adapter[] = [], changes: Partial<Work> = {}) {
  const result = await session.image(requestOf({ ...work, ...changes, adapters }));
  return { latents: latentsOf(result), merged: result.merged };
}

/** The latents of the model whose files hold the sum. */
async function mergedLatents(file: string, merge: Parameters<typeof copyModel>[1]) {
  const merged = await openModelFolder(copyModel(file, merge));
  return latentsOf(await draw({ ...work, model: merged }));
}

describe("a session with adapters", () => {
  test.each([0.8, -0.5])("generates what the merged model does: %d", async (scale) => {
    const theirs = await mergedLatents(unetFile, (t) => first.mergeInto(unetFile, t, scale));
    const ours = await draw({ ...work, adapters: [scaled(first.adapter, scale)] });
    expect(relativeL2(latentsOf(ours), theirs)).toBeLessThan(5e-4);
    const plain = latentsOf(await draw(work));
    expect(relativeL2(plain, theirs)).toBeGreaterThan(0.02);
  });

  test("adds two of them, and a text encoder's own scale is its own", async () => {
    const theirs = await mergedLatents(unetFile, (tensors) => {
      first.mergeInto(unetFile, tensors, 0.8);
      second.mergeInto(unetFile, tensors, -0.5);
    });
    const adapters = [scaled(first.adapter, 0.8), scaled(second.adapter, -0.5)];
    const both = latentsOf(await draw({ ...work, adapters }));
    expect(relativeL2(both, theirs)).toBeLessThan(5e-4);
    const encoder = await mergedLatents(encoderFile, (t) => text.mergeInto(encoderFile, t, 0.7));
    const unetOnly = { ...text.adapter, unetScale: 0, textScale: 0.7 };
    const ours = latentsOf(await draw({ ...work, adapters: [unetOnly] }));
    expect(relativeL2(ours, encoder)).toBeLessThan(5e-4);
  });

  test("returns to the very bits, and merges a set once", async () => {
    await withSession(work, async (session) => {
      const plain = await image(session);
      const one = [scaled(first.adapter, 0.8)];
      const two = [scaled(first.adapter, 0.8), scaled(second.adapter, 1)];
      const merged = await image(session, one);
      expect(merged.merged.weightCount).toBe(attention.length + others.length);
      const more = await image(session, two);
      expect(more.latents).not.toEqual(merged.latents);
      expect(more.merged.weightCount).toBe(2 * (attention.length + others.length));
      for (const [adapters, latents] of [
        [one, merged.latents],
        [[], plain.latents],
        [[scaled(first.adapter, 0)], plain.latents],
        [two, more.latents],
        [[...two].reverse(), null],
        [one, merged.latents],
        [[], plain.latents],
      ] as const) {
        const again = await image(session, [...adapters]);
        if (latents !== null) expect(again.latents).toEqual(latents);
      }
      const last = await image(session, one);
      expect(last.latents).toEqual(merged.latents);
      // One more set, that of the other order.
      expect(last.merged.weightCount).toBe(3 * (attention.length + others.length));
    });
  });

  test("is the same on two ranks as on one", async () => {
    const adapters = [scaled(first.adapter, 0.8), scaled(text.adapter, 0.5)];
    const one = latentsOf(await draw({ ...work, adapters }));
    const two = latentsOf(await draw({ ...work, adapters, rankCount: 2, splitBatch: false }));
    expect(relativeL2(two, one)).toBeLessThan(1e-5);
    const fibers = latentsOf(await draw({ ...work, adapters, rankCount: 4, threadCount: 2 }));
    expect(relativeL2(fibers, one)).toBeLessThan(1e-5);
  });

  test("keeps its memory over 50 changes", async () => {
    const small = { width: 32, height: 32, stepCount: 1, guidanceScale: 1 };
    await withSession({ ...work, ...small }, async (session) => {
      const plain = await image(session, [], small);
      const grown: number[] = [];
      for (let i = 0; i < 50; i++) {
        const adapters = [scaled(first.adapter, 0.1 + (i % 10) / 10)];
        const { merged } = await image(session, adapters, small);
        // The set in use and three others.
        expect(merged.bytes).toBeLessThan(4.1 * mergedBytes(adapters));
        grown.push(ownBytes());
      }
      // Once the allocator has its holes, changes take no more, where a leak would take a set each.
      const growth = Math.min(...grown.slice(40)) - Math.min(...grown.slice(16, 26));
      expect(growth).toBeLessThan(2 * mergedBytes([first.adapter]));
      expect((await image(session, [], small)).latents).toEqual(plain.latents);
    });
  });
});

async function failure(work: Promise<unknown>): Promise<BasedXLError> {
  const error = await work.then(() => null).catch((reason) => reason);
  expect(error).toBeInstanceOf(BasedXLError);
  return error as BasedXLError;
}

/** By the library's plan. */
function mergedBytes(adapters: Adapter[]): number {
  return planOf({ ...smallestOptions(nativeModelOf(model), 16), adapters }).adapter_bytes;
}

function ownBytes(): number {
  Bun.gc(true);
  const status = readFileSync("/proc/self/status", "utf8");
  return Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

test("the plan counts merged weights: f16 of matrices, f32 of vectors, each once", () => {
  expect(mergedBytes([])).toBe(0);
  const one = mergedBytes([first.adapter]);
  expect(one).toBe(mergedBytes([first.adapter, scaled(second.adapter, 0.5)]));
  expect(mergedBytes([second.adapter])).toBeLessThan(one);
  expect(mergedBytes([scaled(first.adapter, 0)])).toBe(0);
});

test("an image that needs the memory of kept sets gets it; what is merged counts", async () => {
  await withSession(work, async (session) => {
    const plain = await image(session);
    const one = await image(session, [first.adapter]);
    await image(session, [second.adapter]);
    const huge = { width: 131072, height: 131072 };
    const error = await failure(image(session, [scaled(first.adapter, 0.5)], huge));
    expect(error.code).toBe("no-memory");
    const needed = mergedBytes([first.adapter]) / 2 ** 30;
    expect(error.message).toContain(`(${needed.toFixed(2)} GiB for weights`);
    const again = await image(session, [first.adapter]);
    expect(again.latents).toEqual(one.latents);
    const count = first.adapter.targets.length;
    expect(again.merged.weightCount).toBe(2 * count + second.adapter.targets.length);
    expect(again.merged.bytes).toBe(one.merged.bytes);
    expect((await image(session)).latents).toEqual(plain.latents);
  });
});

describe("what cannot be applied", () => {
  const bytes = readFileSync(first.adapter.path);
  const damaged = join(folder, "damaged.safetensors");
  writeFileSync(damaged, bytes.subarray(0, bytes.length - 8));
  const [target] = first.adapter.targets;
  const renamed = { ...target!, tensors: { ...target!.tensors, up: "no.such" } };
  const elsewhere = { ...target!, key: "no.such.weight" };
  const turned = { ...target!, key: others.find((key) => key.endsWith("conv1.weight"))! };
  const cases: [string, Adapter, RegExp][] = [
    ["a missing file", { ...first.adapter, path: "/no/such" }, /^\/no\/such cannot be read/],
    ["a short file", { ...first.adapter, path: damaged }, /damaged.safetensors.*cut short/],
    ["a missing tensor", { ...first.adapter, targets: [renamed] }, /no\.such is missing from.*fir/],
    [
      "a missing weight",
      { ...first.adapter, targets: [elsewhere] },
      /first.*no\.such\.weight.*not/,
    ],
    ["another shape", { ...first.adapter, targets: [turned] }, /first.*tensor.*does not fit the l/],
    ["huge scales", { ...first.adapter, unetScale: 1e9 }, /With the LoRAs applied.*f16/],
  ];

  test("is refused in a sentence, and the next image is right", async () => {
    await withSession(work, async (session) => {
      const plain = await image(session);
      const adapters = [scaled(text.adapter, 1)];
      const adapted = await image(session, adapters);
      for (const [, adapter, sentence] of cases) {
        const error = await failure(image(session, [scaled(text.adapter, 1), adapter]));
        expect(error.code).toBe("bad-weights");
        expect(error.message).toMatch(sentence);
        expect((await image(session, adapters)).latents).toEqual(adapted.latents);
      }
      await failure(image(session, [cases[5]![1]]));
      expect((await image(session)).latents).toEqual(plain.latents);
    });
  });

  test("a cancelled merge leaves the next image right, and stages come in order", async () => {
    await withSession(work, async (session) => {
      const plain = await image(session);
      const abort = new AbortController();
      const adapters = [scaled(first.adapter, 0.3)];
      const stages: string[] = [];
      const request = requestOf({ ...work, adapters });
      const stopped = session.image(request, {
        signal: abort.signal,
        onProgress: ({ stage }) => {
          stages.push(stage);
          abort.abort();
        },
      });
      expect((await failure(stopped)).code).toBe("cancelled");
      expect(stages[0]).toBe("adapt");
      const whole = await image(session, adapters);
      expect(whole.latents).not.toEqual(plain.latents);
      expect((await image(session)).latents).toEqual(plain.latents);
      expect((await image(session, adapters)).latents).toEqual(whole.latents);
    });
  });

  test("a file that changed is read again; one cut short later does not matter", async () => {
    const path = join(folder, "changing.safetensors");
    writeFileSync(path, bytes);
    const adapter = { ...scaled(first.adapter, 0.8), path };
    await withSession(work, async (session) => {
      const before = await image(session, [adapter]);
      writeFileSync(path, readFileSync(first.adapter.path));
      const after = await image(session, [adapter]);
      expect(after.latents).toEqual(before.latents);
      expect(after.merged.weightCount).toBe(2 * before.merged.weightCount);
      truncateSync(path, bytes.length - 8);
      await failure(image(session, [adapter]));
    });
  });

  // Merging takes some polls.
  const targets = Array.from({ length: 100 }, () => first.adapter.targets).flat();
  const long = { ...scaled(first.adapter, 1e-3), targets };

  test.each([1, 3])("a file cut short during a merge ends it: %d rank(s)", async (rankCount) => {
    const path = join(folder, `cut-${rankCount}.safetensors`);
    writeFileSync(path, bytes);
    const adapter = { ...long, path };
    const threads = { rankCount, threadCount: 2 };
    await withSession({ ...work, ...threads }, async (session) => {
      const plain = await image(session, [], threads);
      let fraction = 1;
      const cut = session.image(requestOf({ ...work, ...threads, adapters: [adapter] }), {
        onProgress: ({ stage, adaptFraction }) => {
          if (stage !== "adapt" || adaptFraction === 0 || fraction < 1) return;
          fraction = adaptFraction;
          truncateSync(path, 1000);
        },
      });
      const error = await failure(cut);
      expect(fraction).toBeLessThan(1);
      expect(error.code).toBe("bad-weights");
      const sentence =
        "was changed, cut short or lost while it was in use, so no image was written";
      expect(error.message).toStartWith(`${path} ${sentence}`);
      expect((await image(session, [], threads)).latents).toEqual(plain.latents);
      expect((await failure(image(session, [adapter], threads))).message).toContain(path);
      const other = await image(session, [first.adapter], threads);
      expect(other.latents).not.toEqual(plain.latents);
    });
  });

  test("a file deleted during a merge serves its job, and no later one", async () => {
    const path = join(folder, "deleted.safetensors");
    writeFileSync(path, bytes);
    const adapter = { ...long, path };
    await withSession(work, async (session) => {
      const whole = await image(session, [{ ...adapter, path: first.adapter.path }]);
      let isDeleted = false;
      const result = await session.image(requestOf({ ...work, adapters: [adapter] }), {
        onProgress: ({ stage, adaptFraction }) => {
          if (stage !== "adapt" || adaptFraction === 0 || isDeleted) return;
          unlinkSync(path);
          isDeleted = true;
        },
      });
      expect(isDeleted).toBe(true);
      expect(latentsOf(result)).toEqual(whole.latents);
      const error = await failure(image(session, [adapter]));
      expect(error.message).toBe(`${path} cannot be read (FileNotFound).`);
      const again = await image(session, [{ ...adapter, path: first.adapter.path }]);
      expect(again.latents).toEqual(whole.latents);
    });
  });
});
