/**
 * Jobs through the own API, on a server whose sessions compute nothing.
 */
import { describe, expect, spyOn, test } from "bun:test";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BasedXLError } from "../../src/errors.ts";
import { readMetadata } from "../../src/metadata.ts";
import { Catalog } from "../../src/serve/catalog.ts";
import { JobStore } from "../../src/serve/jobs/store.ts";
import { colouredPng, squareMask } from "../support/input-images.ts";
import { refusal } from "../support/refusal.ts";
import { type JobJson, outputsFolder, startTestServer } from "../support/serve-fixture.ts";

const small = { width: 32, height: 32, num_inference_steps: 3, seed: 7 };

const typesOf = (events: readonly { type: string }[]) => events.map(({ type }) => type);

test("a job is taken, told and written, with its parameters", async () => {
  await using server = await startTestServer();
  const response = await server.post("/api/v1/jobs", { request: small, format: "webp" });
  expect(response.status).toBe(202);
  const { id } = (await response.json()) as JobJson;
  expect(response.headers.get("Location")).toBe(`/api/v1/jobs/${id}`);
  const events = await server.events(id);
  expect(typesOf(events)).toEqual([
    ...["queued", "start", "progress", "progress", "progress"],
    ...["progress", "progress", "progress", "image", "done"],
  ]);
  const ids = events.map((event) => event.id);
  expect(ids).toEqual([...ids].sort((a, b) => a - b));

  const job = await server.job(id);
  expect(job).toMatchObject({ state: "done", attempts: 1, position: null, error: null });
  expect(job.images).toMatchObject([{ index: 0, seed: "7", width: 32, type: "image/webp" }]);
  const file = job.images[0]!.file;
  const { request } = await readMetadata(join(server.outputs, file));
  expect(request).toMatchObject({ seeds: [7n], stepCount: 3 });
  const bytes = await (await server.fetch(`/api/v1/jobs/${id}/images/0`)).bytes();
  expect(bytes.length).toBe(job.images[0]!.bytes);
});

test("events are told again after any of them, and end with the job", async () => {
  await using server = await startTestServer();
  const { id } = await server.submit(small);
  const all = await server.events(id);
  for (const [index, event] of all.entries()) {
    expect(await server.events(id, event.id)).toEqual(all.slice(index + 1));
  }
});

test("the gallery shows files, and what they say", async () => {
  await using server = await startTestServer();
  const { id } = await server.submit({ ...small, prompt: "a <b>red</b> house" });
  await server.ended(id);
  const { images } = (await (await server.fetch("/api/v1/images")).json()) as {
    images: { name: string }[];
  };
  const [{ name }] = images as [{ name: string }];
  expect(name).toBe(`${id}-0.png`);
  const metadata = await server.fetch(`/api/v1/images/${name}/metadata`);
  const said = (await metadata.json()) as { request: Record<string, unknown>; model: string };
  expect(said).toMatchObject({ model: "mini-sdxl", request: { prompt: "a <b>red</b> house" } });
  const again = await server.submit(said.request);
  await server.ended(again.id);
  const bytesOf = async (of: string) => await (await server.fetch(`/api/v1/images/${of}`)).bytes();
  expect(await bytesOf(`${again.id}-0.png`)).toEqual(await bytesOf(name));
  const dropped = await server.fetch("/api/v1/metadata", {
    ...{ method: "POST", body: await bytesOf(name) },
  });
  expect(await dropped.json()).toEqual(said);
  const thumbnail = await server.fetch(`/api/v1/images/${name}/thumbnail`);
  expect(thumbnail.headers.get("Content-Type")).toBe("image/webp");
  expect((await server.fetch(`/api/v1/images/${name}`, { method: "DELETE" })).status).toBe(204);
  expect((await server.fetch(`/api/v1/images/${name}`)).status).toBe(404);
  expect((await server.job(id)).images).toEqual([]);
});

test("refuses what cannot be generated, in a sentence", async () => {
  await using server = await startTestServer({ flags: { "max-images": "8" } });
  const sentences: [unknown, string][] = [
    [{ request: { ...small, width: 33 } }, "width must be a multiple of 32"],
    [{ request: { stepz: 3 } }, "There is no setting"],
    [{ request: { ...small, num_images: 9 } }, "A job has at most 8 images here, not 9."],
    [{ request: small, model: "other" }, 'The server has no model "other".'],
    [{ request: small, priority: 11 }, "priority: "],
    [{ request: { ...small, lora: ["/etc/passwd"] } }, "must be a name of the server's list"],
    [{ request: { ...small, lora: ["a/../../b"] } }, "must be a name of the server's list"],
    [{ request: { ...small, lora: ["nothing"] } }, 'The server has no LoRA "nothing".'],
    [{ request: { ...small, prompt: "x <lora:/etc/passwd:1>" } }, "not a path"],
    [{ request: { ...small, embedding: [{ file: "./x" }] } }, "not a path"],
    [{}, "request is missing."],
    [{ request: small, promt: "x" }, 'There is no field "promt".'],
  ];
  for (const [body, sentence] of sentences) {
    const response = await server.post("/api/v1/jobs", body);
    expect(response.status).toBe(400);
    const { error } = (await response.json()) as { error: { message: string } };
    expect(error.message).toContain(sentence);
    expect(error.message).toMatch(/[.?]$/);
  }
  const form = await server.post(
    "/api/v1/jobs",
    { request: small },
    { "Content-Type": "text/plain" },
  );
  expect(form.status).toBe(400);
  expect(await form.json()).toMatchObject({
    error: { message: expect.stringContaining('application/json, which is "text/plain') },
  });
  expect(await (await server.fetch("/api/v1/jobs")).json()).toEqual({ jobs: [] });
});

test("200 clients at once: the queue takes 16, the rest is told when to come again", async () => {
  await using server = await startTestServer({ flags: { "max-queue": "16" }, stepMs: 5 });
  const asked = Array.from({ length: 200 }, (_, index) =>
    server.post("/api/v1/jobs", { request: small }, { Cookie: `basedxl_client=${index}` }),
  );
  const answers = await Promise.all(asked);
  const taken = answers.filter(({ status }) => status === 202);
  const refused = answers.filter(({ status }) => status === 429);
  expect(taken.length).toBeGreaterThanOrEqual(16);
  expect(taken.length + refused.length).toBe(200);
  for (const { headers } of refused) expect(headers.get("Retry-After")).toMatch(/^\d+$/);
  const jobs = await Promise.all(taken.map((each) => each.json() as Promise<JobJson>));
  const ended = await Promise.all(jobs.map(({ id }) => server.ended(id)));
  expect(ended.filter(({ state }) => state !== "done")).toEqual([]);
  expect(readdirSync(server.outputs).filter((name) => name.endsWith(".png"))).toHaveLength(
    taken.length,
  );
});

test("cancels this one, what waits, and all", async () => {
  await using server = await startTestServer({ stepMs: 10 });
  const long = { ...small, num_inference_steps: 1000 };
  const submitAll = async () => [
    await server.submit(long),
    await server.submit(long),
    await server.submit(long),
  ];
  const states = async (jobs: JobJson[]) =>
    await Promise.all(jobs.map(async ({ id }) => (await server.job(id)).state));
  const isRunning = async ({ id }: JobJson) => {
    while ((await server.job(id)).state !== "running") await Bun.sleep(2);
  };
  const first = await submitAll();
  await isRunning(first[0]!);
  await server.fetch(`/api/v1/jobs/${first[0]!.id}`, { method: "DELETE" });
  const events = await server.events(first[0]!.id);
  expect(events.at(-1)).toMatchObject({ type: "cancelled", by: "client" });
  await isRunning(first[1]!);
  const rest = await server.post("/api/v1/cancel", { what: "rest" });
  expect(await rest.json()).toEqual({ cancelled: 1 });
  expect(await states(first)).toEqual(["cancelled", "running", "cancelled"]);
  const more = await submitAll();
  const all = await server.post("/api/v1/cancel", { what: "all" });
  expect(await all.json()).toEqual({ cancelled: 4 });
  await server.ended(first[1]!.id);
  expect(await states([...first, ...more])).toEqual(Array(6).fill("cancelled"));
});

test("what waits is told its place when a job before it starts, also after a cancel", async () => {
  await using server = await startTestServer();
  const long = { ...small, num_inference_steps: 1000 };
  const [first, second, third] = [
    await server.submit(long),
    await server.submit(long),
    await server.submit(long),
  ];
  while ((await server.job(first.id)).progress === null) await Bun.sleep(2);
  await server.fetch(`/api/v1/jobs/${first.id}`, { method: "DELETE" });
  while ((await server.job(second.id)).progress === null) await Bun.sleep(2);
  await server.post("/api/v1/cancel", { what: "all" });
  const [queued, ended] = await server.events(third.id);
  expect(queued).toMatchObject({ type: "queued", position: 0 });
  expect(ended).toMatchObject({ type: "cancelled" });
});

test("jobs that are alike are computed together, and each is its own", async () => {
  await using server = await startTestServer({ flags: { "batch-jobs": "4" }, stepMs: 5 });
  const blocker = await server.submit({ ...small, num_inference_steps: 20 });
  const jobs: JobJson[] = [];
  for (const seed of [1, 2, 3]) {
    jobs.push(await server.submit({ ...small, prompt: `house ${seed}`, seed, guidance_scale: 5 }));
  }
  const other = await server.submit({ ...small, prompt: "x", width: 64 });
  const cancelled = await server.submit({ ...small, prompt: "y", guidance_scale: 5 });
  await server.fetch(`/api/v1/jobs/${cancelled.id}`, { method: "DELETE" });
  for (const { id } of [blocker, ...jobs, other]) await server.ended(id);
  const counts = server.log.images.map(({ seeds }) => seeds.map(String));
  expect(counts).toEqual([["7"], ["1", "2", "3"], ["7"]]);
  for (const [index, { id }] of jobs.entries()) {
    const { images } = await server.job(id);
    expect(images).toMatchObject([{ index: 0, seed: String(index + 1) }]);
    const { request } = await readMetadata(join(server.outputs, images[0]!.file));
    expect(request).toMatchObject({ prompt: `house ${index + 1}`, guidanceScale: 5 });
  }
});

describe("after a restart", () => {
  test("what ran and what waited is generated, each image once", async () => {
    const outputs = outputsFolder();
    const before = await startTestServer({ outputs, stepMs: 20 });
    const three = await before.submit({ ...small, num_images: 3 });
    const waiting = await before.submit({ ...small, seed: 99 });
    const seedsOf = ({ images }: JobJson) => images.map(({ seed }) => seed);
    let done: string[] = [];
    while (done.length === 0) done = seedsOf(await before.job(three.id));
    await before.stop();

    await using server = await startTestServer({ outputs });
    const [one, two] = [await server.ended(three.id), await server.ended(waiting.id)];
    expect([one.state, two.state]).toEqual(["done", "done"]);
    expect(seedsOf(one)).toEqual(["7", "8", "9"]);
    const generated = server.log.images.flatMap(({ seeds }) => seeds.map(String));
    for (const seed of done) expect(generated).not.toContain(seed);
    const events = await server.events(three.id);
    expect(events.filter(({ type }) => type === "image")).toHaveLength(3);
    const files = readdirSync(outputs).filter((name) => name.endsWith(".png"));
    expect(files).toHaveLength(4);
  });

  test("a job that ended its server too often has failed, and says so", async () => {
    const outputs = outputsFolder();
    const before = await startTestServer({ outputs, stepMs: 1000 });
    const { id } = await before.submit(small);
    await before.stop();
    const store = JobStore.open(join(outputs, ".basedxl-jobs.sqlite"));
    store.update({ ...store.get(id)!, state: "running", attempts: 3 });
    store.close();
    await using server = await startTestServer({ outputs });
    expect(await server.ended(id)).toMatchObject({
      ...{ state: "failed", error: { code: "interrupted" } },
    });
  });

  test("files that a killed server left are no images", async () => {
    const outputs = outputsFolder();
    writeFileSync(join(outputs, `.basedxl-${crypto.randomUUID()}.tmp`), "half");
    await using server = await startTestServer({ outputs });
    expect(await (await server.fetch("/api/v1/images")).json()).toEqual({ images: [] });
    expect(readdirSync(outputs).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });
});

test("two servers do not share a folder of outputs", async () => {
  await using server = await startTestServer();
  const second = () => startTestServer({ outputs: server.outputs });
  expect(await refusal(second, "io")).toContain("another server uses it");
});

test("a lost session is opened anew, and the job tried again", async () => {
  const lost = new BasedXLError("gpu-failed", "The GPU is gone.");
  lost.sessionLost = true;
  await using server = await startTestServer({ failures: [lost] });
  const { id } = await server.submit(small);
  expect(await server.ended(id)).toMatchObject({ state: "done", attempts: 2 });
  expect(server.log.opened).toHaveLength(2);
});

test("what cannot be generated has failed, with the reason", async () => {
  const error = new BasedXLError("not-finite", "The image is not finite.");
  await using server = await startTestServer({ failures: [error] });
  const { id } = await server.submit(small);
  const { state, error: why } = await server.ended(id);
  expect({ state, why }).toEqual({
    ...{ state: "failed", why: { code: "not-finite", message: "The image is not finite." } },
  });
});

test("a job starts from an image, also after a restart, and the image goes with it", async () => {
  const outputs = outputsFolder();
  const before = await startTestServer({ outputs, stepMs: 50 });
  const { id: first } = await before.submit({ ...small, num_inference_steps: 1 });
  await before.ended(first);
  const bytes = await (await before.fetch(`/api/v1/jobs/${first}/images/0`)).bytes();
  const image = Buffer.from(bytes).toString("base64");
  const sized = { width: 32, height: 32, num_inference_steps: 8, seed: 3, strength: 0.5 };
  const { id } = await before.submit(sized, { image });
  const kept = () => readdirSync(join(outputs, ".basedxl-inputs"));
  expect(kept()).toHaveLength(1);
  await before.stop();
  await using server = await startTestServer({ outputs });
  expect(await server.ended(id)).toMatchObject({ state: "done" });
  expect(server.log.images.at(-1)).toMatchObject({ seeds: [3n] });
  expect(kept()).toEqual([]);
  for (const [spec, sentence] of [
    [{ image: "bm8gaW1hZ2U=" }, "cannot be read as an image"],
    [{ mask: image }, "A mask needs an image."],
  ] as const) {
    const response = await server.post("/api/v1/jobs", { request: sized, ...spec });
    expect(response.status).toBe(400);
    expect(await response.text()).toContain(sentence);
  }
});

test("images to start from are decoded one at a time", async () => {
  await using server = await startTestServer();
  const original = Catalog.prototype.images;
  let [now, most] = [0, 0];
  const spy = spyOn(Catalog.prototype, "images").mockImplementation(async function (
    this: Catalog,
    ...args
  ) {
    most = Math.max(most, ++now);
    await Bun.sleep(5);
    now -= 1;
    return await original.apply(this, args);
  });
  try {
    const image = Buffer.from(await colouredPng({ width: 32, height: 32 })).toString("base64");
    const answers = await Promise.all(
      Array.from({ length: 5 }, () => server.post("/api/v1/jobs", { request: {}, image })),
    );
    expect(answers.map(({ status }) => status)).toEqual([202, 202, 202, 202, 202]);
    await server.post("/api/v1/cancel", { what: "all" });
    // One more where a job begins, which reads its image again.
    expect(most).toBeLessThanOrEqual(2);
  } finally {
    spy.mockRestore();
  }
});

test("an image to start from that is too large is refused before it is read", async () => {
  await using server = await startTestServer({ flags: { "max-megapixels": "0.01" } });
  const image = await colouredPng({ width: 128, height: 96 });
  const response = await server.post("/api/v1/jobs", {
    request: { ...small, strength: 0.5 },
    image: Buffer.from(image).toString("base64"),
  });
  expect(response.status).toBe(400);
  const sentence = "Images of requests have at most 0.01 million pixels here, not 0.012288.";
  expect(await response.json()).toEqual({ error: { code: "bad-option", message: sentence } });
});

test("a job comes as a form with files too", async () => {
  await using server = await startTestServer();
  const size = { width: 32, height: 32 };
  const request = { ...small, num_inference_steps: 1, seed: 3 };
  const form = (parts: Record<string, string | Uint8Array>) => {
    const body = new FormData();
    for (const [name, part] of Object.entries(parts)) {
      body.append(
        name,
        typeof part === "string" ? part : new Blob([part as Uint8Array<ArrayBuffer>]),
      );
    }
    return server.fetch("/api/v1/jobs", { method: "POST", body });
  };
  const files = { image: await colouredPng(size), mask: await squareMask(size) };
  const taken = await form({ job: JSON.stringify({ request }), ...files });
  expect(taken.status).toBe(202);
  const { id } = (await taken.json()) as JobJson;
  expect(await server.ended(id)).toMatchObject({ state: "done" });
  for (const [parts, sentence] of [
    [files, "A form has a part job, a text in JSON."],
    [{ job: "{", ...files }, "A form has a part job, a text in JSON."],
    [{ job: JSON.stringify({ request }), image: "a" }, "image must be a file."],
    [{ job: JSON.stringify({ request }), mask: files.mask }, "A mask needs an image."],
    [{ job: JSON.stringify({ request: { steps: 1 } }) }, "There is no setting"],
  ] as const) {
    const refused = await form(parts as Record<string, string>);
    expect(refused.status).toBe(400);
    expect(await refused.text()).toContain(sentence);
  }
});
