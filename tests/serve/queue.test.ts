/**
 * The queue: bounded, by priority, and fair between clients whatever they send.
 */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { FairQueue, type Waiting } from "../../src/serve/jobs/queue.ts";

const job = fc.record({
  client: fc.constantFrom("a", "b", "c"),
  priority: fc.integer({ min: -1, max: 1 }),
});

function filled(jobs: readonly Omit<Waiting, "id">[]) {
  const queue = new FairQueue<Waiting>(16);
  for (const [index, each] of jobs.entries()) queue.add({ id: String(index), ...each });
  return queue;
}

test("jobs are taken in the order that was told, each once", () => {
  fc.assert(
    fc.property(fc.array(job, { maxLength: 30 }), (jobs) => {
      const queue = filled(jobs);
      const told = queue.inOrder().map(({ id }) => id);
      const taken: string[] = [];
      for (let next = queue.take(); next !== null; next = queue.take()) taken.push(next.id);
      expect(taken).toEqual(told);
      expect(new Set(taken).size).toBe(jobs.length);
    }),
  );
});

test("the order that was told holds also where clients were served before", () => {
  const some = fc.array(job, { maxLength: 15 });
  fc.assert(
    fc.property(some, some, fc.nat(15), (before, after, count) => {
      const queue = filled(before);
      for (let i = 0; i < count; i++) queue.take();
      for (const [index, each] of after.entries()) queue.add({ id: `late ${index}`, ...each });
      const told = queue.inOrder().map(({ id }) => id);
      expect(told.map(() => queue.take()?.id)).toEqual(told);
      expect(queue.take()).toBeNull();
    }),
  );
});

test("no client waits for two jobs of another of the same priority", () => {
  fc.assert(
    fc.property(fc.array(job, { maxLength: 30 }), (jobs) => {
      const order = filled(jobs.map((each) => ({ ...each, priority: 0 }))).inOrder();
      for (const [index, { client }] of order.entries()) {
        const rest = order.slice(index + 1);
        const next = rest.findIndex((other) => other.client === client);
        if (next < 0) continue;
        const between = rest.slice(0, next);
        const others = between.map((other) => other.client);
        expect(new Set(others).size).toBe(others.length);
      }
    }),
  );
});

test("priorities go first, and a client's own jobs in its order", () => {
  fc.assert(
    fc.property(fc.array(job, { maxLength: 30 }), (jobs) => {
      const order = filled(jobs).inOrder();
      const priorities = order.map(({ priority }) => priority);
      expect(priorities).toEqual([...priorities].sort((x, y) => y - x));
      for (const client of ["a", "b", "c"]) {
        for (const priority of [-1, 0, 1]) {
          const own = order.filter((each) => each.client === client && each.priority === priority);
          const ids = own.map(({ id }) => Number(id));
          expect(ids).toEqual([...ids].sort((x, y) => x - y));
        }
      }
    }),
  );
});

test("who comes late has the next turn", () => {
  const queue = filled(Array.from({ length: 5 }, () => ({ client: "a", priority: 0 })));
  queue.take();
  queue.add({ id: "late", client: "b", priority: 0 });
  expect(queue.take()?.id).toBe("late");
  expect(queue.takeAlike(2, ({ id }) => id !== "2").map(({ id }) => id)).toEqual(["1", "3"]);
  expect(queue.remove("2")?.id).toBe("2");
  expect([queue.length, queue.isFull]).toEqual([1, false]);
});
