/**
 * What jobs and readers leave in the server's heap once they have ended: nothing, in objects. The
 * sessions compute nothing; what the native side keeps is measured by `bun run bench soak`.
 */
import { heapStats } from "bun:jsc";
import { expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { collectGarbage } from "../../src/serve/jobs/garbage.ts";
import { startTestServer, type TestServer } from "../support/serve-fixture.ts";

// Hundreds of jobs, and the cores may be busy.
setDefaultTimeout(180_000);

test("garbage is collected after each job, also where another one has just ended", async () => {
  using collect = spyOn(Bun, "gc");
  for (let round = 1; round <= 3; round++) {
    // Two that end together; nothing ends after the last ones.
    collectGarbage();
    collectGarbage();
    while (collect.mock.calls.length < round) await Bun.sleep(1);
  }
  await Bun.sleep(200);
  expect(collect.mock.calls).toEqual([[true], [true], [true]]);
});

test("jobs that have ended leave no objects", async () => {
  await using server = await startTestServer({ stepMs: 0 });
  // Code is compiled, and the log of events gets as long as it may.
  await runJobs(server, 0, 300);
  const before = await objectCount(server);
  await runJobs(server, 300, 500);
  // A job that is kept has dozens.
  expect((await objectCount(server)) - before).toBeLessThan(200 * 2);
});

test("readers of events that go leave no objects, nor does who asks for the head", async () => {
  await using server = await startTestServer();
  const read = async (method: "GET" | "HEAD", count: number) => {
    for (let i = 0; i < count; i++) {
      const controller = new AbortController();
      const { status } = await server.fetch("/api/v1/events", {
        ...{ method, signal: controller.signal },
      });
      expect(status).toBe(200);
      controller.abort();
    }
    await Bun.sleep(200);
  };
  for (const method of ["GET", "HEAD"] as const) {
    await read(method, 50);
    const before = await objectCount(server);
    await read(method, 200);
    // A stream has dozens.
    expect((await objectCount(server)) - before).toBeLessThan(200 * 2);
  }
});

async function runJobs(server: TestServer, first: number, end: number): Promise<void> {
  const sides = [320, 256, 192, 128];
  for (let seed = first; seed < end; seed++) {
    const [width, height] = [sides[seed % 4], sides[(seed >> 2) % 4]];
    const { id } = await server.submit({ prompt: `a house ${seed}`, width, height, seed });
    expect((await server.ended(id)).state).toBe("done");
  }
}

async function objectCount(server: TestServer): Promise<number> {
  // The fixture's own notes.
  server.lines.length = 0;
  server.log.images.length = 0;
  for (let i = 0; i < 3; i++) {
    Bun.gc(true);
    await Bun.sleep(20);
  }
  return heapStats().objectCount;
}
