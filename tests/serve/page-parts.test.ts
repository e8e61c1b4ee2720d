/**
 * What the page computes without a browser: weights, completions, events, differences, times.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { accept, completionAt } from "../../src/serve/page/client/compose/complete.ts";
import { changeWeight, hasWeights } from "../../src/serve/page/client/compose/weights.ts";
import { differenceOfPixels } from "../../src/serve/page/client/gallery/pixel-difference.ts";
import { apply, jobs, loadJob, loadJobs, submit } from "../../src/serve/page/client/server/jobs.ts";
import { newest, paced } from "../../src/serve/page/client/server/pace.ts";
import { parseEvent, readEvents } from "../../src/serve/page/client/server/sse.ts";
import type { Job, JobEvent } from "../../src/serve/page/client/server/wire.ts";
import { duration } from "../../src/serve/page/client/ui/format.ts";

/** The selection stands between brackets of this kind; one alone is a caret. */
function selectionOf(marked: string) {
  const start = marked.indexOf("[");
  const end = marked.includes("]") ? marked.indexOf("]") - 1 : start;
  return { text: marked.replace("[", "").replace("]", ""), start, end };
}

describe("weights", () => {
  test.each([
    ["a red [house", "a red (house:1.1)"],
    ["a [red house] here", "a (red house:1.1) here"],
    ["a [red house ]here", "a (red house:1.1) here"],
    ["a (red h[ouse:1.1) here", "a (red house:1.2) here"],
    ["a (red [house:0.9)", "a red house"],
    ["<lora:det[ail:0.8>, fog", "<lora:detail:0.9>, fog"],
    ["<lora:detail[>", "<lora:detail:1.1>"],
    ["<lora:detail:0.5:0.8[>", "<lora:detail:0.5:0.9>"],
  ])("%s", (marked, changed) => {
    expect(changeWeight(selectionOf(marked), 0.1)?.text).toBe(changed);
  });

  test("there is nothing to weigh between words", () => {
    expect(changeWeight(selectionOf("a , [, b"), 0.1)).toBeNull();
  });

  test("up and down again is the same text, with the same words selected", () => {
    const words = fc.stringMatching(/^[a-z]{1,8}( [a-z]{1,8}){0,3}$/);
    fc.assert(
      fc.property(
        words,
        words,
        words,
        fc.integer({ min: 1, max: 5 }),
        (before, middle, after, n) => {
          const text = `${before}, ${middle}, ${after}`;
          const start = before.length + 2;
          const from = { text, start, end: start + middle.length };
          let now = from;
          for (let i = 0; i < n; i++) now = changeWeight(now, 0.1)!;
          expect(hasWeights(now.text)).toBe(true);
          for (let i = 0; i < n; i++) now = changeWeight(now, -0.1)!;
          expect(now).toEqual(from);
        },
      ),
    );
  });

  test("brackets without a number are none", () => {
    expect(hasWeights("a (red) house (at 10:30 in rain)")).toBe(false);
    expect(hasWeights("a \\(red:1.2\\) house")).toBe(false);
  });
});

describe("completions", () => {
  const names = { loras: ["detail", "add-detail", "fog"], embeddings: ["easynegative", "fast"] };
  const offered = (text: string) => completionAt(text, text.length, names)?.options ?? [];
  const insertedBy = (text: string) => {
    const completion = completionAt(text, text.length, names)!;
    return accept(text, completion, completion.options[0]!);
  };

  test("LoRAs after the tag's beginning, those that begin so first", () => {
    expect(offered("a, <lora:det").map(({ name }) => name)).toEqual(["detail", "add-detail"]);
    expect(offered("a <l")).toHaveLength(3);
    expect(insertedBy("a, <lora:det")).toEqual({ text: "a, <lora:detail:1>", caret: 18 });
  });

  test("what is behind the caret and belongs to the tag is replaced", () => {
    const text = "<lora:det:1> x";
    const completion = completionAt(text, 9, names)!;
    expect(accept(text, completion, completion.options[0]!).text).toBe("<lora:detail:1> x");
  });

  test("embeddings by two letters, or behind their mark", () => {
    expect(offered("bad, e")).toEqual([]);
    expect(insertedBy("bad, ea").text).toBe("bad, easynegative");
    expect(insertedBy("embedding:").text).toBe("embedding:easynegative");
    expect(offered("easynegative")).toEqual([]);
  });
});

describe("events", () => {
  test("are whole however their bytes arrive", async () => {
    const text = ': hello\n\nid: 7\nevent: step\ndata: {"a":"ä"}\n\nid: 8\ndata: 1\ndata: 2\n\n';
    const bytes = new TextEncoder().encode(text);
    for (const size of [1, 3, 1000]) {
      const body = new ReadableStream<Uint8Array>({
        start(controller) {
          for (let at = 0; at < bytes.length; at += size) {
            controller.enqueue(bytes.slice(at, at + size));
          }
          controller.close();
        },
      });
      const events = await Array.fromAsync(readEvents(new Response(body)));
      expect(events.flat()).toEqual([
        { id: "7", type: "step", data: '{"a":"ä"}' },
        { id: "8", type: "message", data: "1\n2" },
      ]);
    }
  });

  test("a comment is none", () => {
    expect(parseEvent(": still here")).toBeNull();
  });
});

test("the difference of two images is the largest of a channel, without alpha", () => {
  const { values, largest, psnr } = differenceOfPixels(
    [10, 20, 30, 255, 0, 0, 0, 255],
    [10, 25, 28, 0, 0, 0, 0, 255],
  );
  expect([...values]).toEqual([5, 0]);
  expect(largest).toBe(5);
  expect(psnr).toBeCloseTo(10 * Math.log10(255 ** 2 / ((25 + 4) / 6)), 6);
});

test("times", () => {
  expect([0.4, 59.4, 60, 125, 3725].map(duration)).toEqual([
    ...["0 s", "59 s", "1:00", "2:05", "1:02:05"],
  ]);
});

const queued = (id: string) =>
  ({
    id,
    state: "queued",
    position: 0,
    progress: null,
    images: [],
    warnings: [],
  }) as unknown as Job;
const eventOf = (jobId: string, event: object, id: number) =>
  ({ id, jobId, at: 0, ...event }) as JobEvent;

describe("the pace of events", () => {
  const progress = (step: number) => ({ type: "progress", stage: "denoise", step, steps: 9 });
  const preview = (index: number) => ({ type: "preview", index, data: "" });
  const happening = fc.oneof(
    fc.nat(9).map(progress),
    fc.nat(1).map(preview),
    fc.nat(1).map((index) => ({ type: "image", index })),
    fc.nat(2).map((position) => ({ type: "queued", position })),
    fc.constantFrom({ type: "start", layout: "1 rank" }, { type: "warning", message: "hot" }),
    fc.constantFrom({ type: "done" }, { type: "cancelled" }, { type: "failed", code: "x" }),
  );

  test("what newer events replace changes nothing in the end", () => {
    const ids = ["pace-0", "pace-1"];
    const after = (events: readonly JobEvent[]) => {
      jobs.value = new Map(ids.map((id) => [id, queued(id)]));
      events.forEach(apply);
      return ids.map((id) => jobs.value.get(id));
    };
    const happenings = fc.array(fc.tuple(fc.constantFrom(...ids), happening), { maxLength: 30 });
    fc.assert(
      fc.property(happenings, (told) => {
        const events = told.map(([jobId, event], id) => eventOf(jobId, event, id));
        const few = newest(events);
        expect(after(few)).toEqual(after(events));
        expect(few.at(-1)).toEqual(events.at(-1));
        expect(few.filter(({ type }) => type === "progress").length).toBeLessThanOrEqual(2);
      }),
    );
  });

  test("a tab that nobody sees shows no previews until it is seen, or the job ends", async () => {
    const tab = Object.assign(new EventTarget(), { hidden: true });
    const shown: string[] = [];
    const change = Promise.withResolvers<void>();
    const take = paced(tab, (events) => {
      shown.push(...events.map(({ type, jobId }) => `${jobId} ${type}`));
      change.resolve();
    });
    const told: [string, object][] = [
      ...([
        ["a", progress(1)],
        ["a", preview(0)],
        ["a", progress(2)],
      ] as [string, object][]),
      ...([
        ["b", preview(0)],
        ["b", { type: "cancelled" }],
      ] as [string, object][]),
    ];
    for (const [id, [jobId, event]] of told.entries()) take(eventOf(jobId, event, id));
    await change.promise;
    expect(shown).toEqual(["a progress", "b preview", "b cancelled"]);
    tab.hidden = false;
    tab.dispatchEvent(new Event("visibilitychange"));
    expect(shown.at(-1)).toBe("a preview");
  });
});

describe("jobs", () => {
  const happens = (jobId: string, event: object, id: number) => apply(eventOf(jobId, event, id));

  test.each([
    ["submitted", "a", (job: Job) => job, () => submit({ request: {} })],
    ["asked for", "b", (job: Job) => job, (id: string) => loadJob(id)],
    ["listed", "c", (job: Job) => ({ jobs: [job] }), () => loadJobs()],
  ] as const)("an answer that events overtake does not undo them: %s", async (_, id, as, ask) => {
    const answer = Promise.withResolvers<Response>();
    const original = globalThis.fetch;
    globalThis.fetch = Object.assign(() => answer.promise, { preconnect: original.preconnect });
    try {
      const asked = ask(id);
      happens(id, { type: "start", layout: "1 rank" }, 1);
      happens(id, { type: "done" }, 2);
      answer.resolve(Response.json(as(queued(id))));
      await asked;
      expect(jobs.value.get(id)?.state).toBe("done");
    } finally {
      globalThis.fetch = original;
    }
  });
});
