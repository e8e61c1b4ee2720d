/**
 * A base model and a refiner in memory: together where they fit, else one after the other.
 */
import { expect, test } from "bun:test";
import { BasedXLError } from "../../src/errors.ts";
import type { ImageRequest, ImageResult } from "../../src/pipeline/session.ts";
import { TwoSessions } from "../../src/pipeline/two-sessions.ts";

interface Machine {
  room: number;
  sizes: [number, number];
  work: number;
  mayTakeTurns?: boolean;
}

/** Models of `sizes` with a job of `work` more, in a memory of `room`. */
function machine({ room, sizes, work, mayTakeTurns = true }: Machine) {
  const log: string[] = [];
  let used = 0;
  const take = (size: number) => {
    if (used + size > room) throw new BasedXLError("no-memory", "too large");
    used += size;
  };
  const names = ["base", "refiner"] as const;
  const checkOf = (which: 0 | 1) => async (besideBytes: number) => {
    if (used + sizes[which] + besideBytes > room) throw new BasedXLError("no-memory", "too large");
    return sizes[which];
  };
  const openOf = (which: 0 | 1) => async () => {
    take(sizes[which]);
    log.push(`open ${names[which]}`);
    return {
      image: async () => {
        take(work);
        used -= work;
        log.push(`run ${names[which]}`);
        return {} as ImageResult;
      },
      upscale: () => Promise.reject(new Error("not asked for")),
      close: async () => {
        used -= sizes[which];
        log.push(`close ${names[which]}`);
      },
    };
  };
  const modelOf = (which: 0 | 1) => ({ check: checkOf(which), open: openOf(which) });
  const onTurns = mayTakeTurns ? () => void log.push("turns") : null;
  const both = new TwoSessions([modelOf(0), modelOf(1)], onTurns);
  return { both, log };
}

const request = {} as ImageRequest;

async function twice({ both, log }: ReturnType<typeof machine>) {
  await both.open({});
  for (let job = 0; job < 2; job++) {
    await both.base.image(request);
    await both.refiner.image(request);
  }
  await both.close();
  return log.join(", ");
}

const runs = "run base, run refiner, run base, run refiner";

test("both stay open where they fit", async () => {
  const log = await twice(machine({ room: 10, sizes: [4, 4], work: 2 }));
  expect(log).toBe(`open base, open refiner, ${runs}, close base, close refiner`);
});

const turn = "run base, close base, open refiner, run refiner";

test("the refiner is opened after the base model where both do not fit", async () => {
  const log = await twice(machine({ room: 7, sizes: [4, 4], work: 2 }));
  const again = `close refiner, open base, ${turn}`;
  expect(log).toBe(`turns, open base, ${turn}, ${again}, close refiner`);
});

test("the refiner is closed where the base model's job does not fit beside it", async () => {
  const log = await twice(machine({ room: 9, sizes: [4, 4], work: 2 }));
  const again = `close refiner, open base, ${turn}`;
  expect(log).toBe(`open base, open refiner, close refiner, turns, ${turn}, ${again}, \
close refiner`);
});

test("what does not fit alone is refused", async () => {
  const { both } = machine({ room: 5, sizes: [4, 4], work: 2 });
  await both.open({});
  await expect(both.base.image(request)).rejects.toThrow("too large");
  for (const sizes of [
    [4, 2],
    [2, 4],
  ] as [number, number][]) {
    const { both: tooLarge, log } = machine({ room: 3, sizes, work: 2 });
    await expect(tooLarge.open({})).rejects.toThrow("too large");
    expect(log).toEqual([]);
  }
});

test("where they may not take turns, both must fit", async () => {
  const given = { sizes: [4, 4] as [number, number], work: 2, mayTakeTurns: false };
  const { both, log } = machine({ ...given, room: 7 });
  await expect(both.open({})).rejects.toThrow("too large");
  expect(log).toEqual([]);
  const tight = machine({ ...given, room: 9 });
  await tight.both.open({});
  await expect(tight.both.base.image(request)).rejects.toThrow("too large");
  expect(tight.log).toEqual(["open base", "open refiner"]);
});
