/**
 * The native library through its sessions: images have the same bits however the work is split;
 * sessions can be cancelled, survive failures, and refuse damaged weights by the tensor's name.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { BasedXLError } from "../../src/errors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { probeDevice } from "../../src/native/device-info.ts";
import type { OpenOptions } from "../../src/pipeline/open-options.ts";
import {
  type ImageRequest,
  type ImageResult,
  openSession,
  type Session,
} from "../../src/pipeline/session.ts";
import { maxAbs } from "../support/compare.ts";
import { withSession as inSession, requestOf, type Work } from "../support/draw.ts";
import { copyModel, copyModelBytes, removeCopies, type Tensors } from "../support/model-copy.ts";

const golden = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const usual: Work = { model: golden, width: 64, height: 96, threadCount: 1, scheduler: "euler_a" };
const open: OpenOptions = {
  model: golden,
  rankCount: 1,
  threadCount: 1,
  width: 64,
  height: 96,
  guidance: true,
  splitBatch: true,
  imageCount: 1,
};

afterAll(removeCopies);

function request(changes: Partial<Work> = {}): ImageRequest {
  return requestOf({ ...usual, ...changes });
}

function withSession<T>(changes: Partial<Work>, use: (s: Session) => Promise<T>): Promise<T> {
  return inSession({ ...usual, ...changes }, use);
}

async function failure(promise: Promise<unknown>): Promise<BasedXLError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof BasedXLError) return error;
    throw error;
  }
  throw new Error("nothing failed");
}

test("the machine is described", () => {
  const info = probeDevice();
  expect(info.coreCount).toBeGreaterThan(0);
  expect(info.instructionSet).toMatch(/^(x86_64(_v3|_v4)?|aarch64)$/);
  expect(info.gpuName === "").toBe(info.gpuCount === 0);
});

// FUSE refuses shared mappings of files that go past the page cache (direct_io).
test.skipIf(process.platform !== "linux")("weights are mapped, privately", async () => {
  await withSession({}, async (session) => {
    await session.image(request());
    const maps = readFileSync("/proc/self/maps", "utf8").split("\n");
    const weights = maps.filter((line) => line.endsWith(".safetensors"));
    expect(weights.length).toBeGreaterThanOrEqual(4);
    expect(weights.filter((line) => !line.includes(" r--p "))).toEqual([]);
  });
});

describe("the same request", () => {
  let reference: ImageResult;
  beforeAll(async () => {
    reference = await withSession({}, (session) => session.image(request()));
  });

  test.each([
    { rankCount: 1, threadCount: 3 },
    { rankCount: 2, threadCount: 2 },
    { rankCount: 2, threadCount: 5 },
  ])("gives the same latents with $rankCount ranks and $threadCount threads", async (shared) => {
    await withSession(shared, async (session) => {
      expect(session.rankCount).toBe(shared.rankCount);
      const result = await session.image(request());
      expect(result.latents).toEqual(reference.latents);
      // Several ranks decode in patches, whose norms add up in another order: 2e-6 of -1 to 1,
      // which turns the level of a number that lies half-way between two.
      const levels = shared.rankCount === 1 ? 0 : 1;
      expect(maxAbs(result.images[0]!, reference.images[0]!)).toBeLessThanOrEqual(levels);
    });
  });

  test("gives the same bits after other sizes, prompts and guidance in one session", async () => {
    await withSession({ rankCount: 2, threadCount: 2 }, async (session) => {
      await session.image(request({ width: 96, height: 64 }));
      await session.image(request({ guidanceScale: 1, prompt: "x" }));
      await session.image(request({ negative: null, stepCount: 5, seeds: [1n, 2n, 3n] }));
      expect((await session.image(request())).latents).toEqual(reference.latents);
    });
  });

  test("gives another image for another seed", async () => {
    await withSession({}, async (session) => {
      const result = await session.image(request({ seeds: [12n] }));
      expect(result.latents).not.toEqual(reference.latents);
    });
  });
});

test("several ranks share an image without guidance", async () => {
  const shared = { rankCount: 3, height: 128, guidanceScale: 1 };
  await withSession(shared, async (session) => {
    expect(session.rankCount).toBe(3);
    const result = await session.image(request(shared));
    expect(result.timings.stepMs).toHaveLength(3);
    expect(result.latentShape).toEqual([1, 4, 16, 8]);
    expect(result.ranks).toHaveLength(3);
  });
});

describe("stopping", () => {
  test.each([1, 2, 3])(
    "%d rank(s) stop within a second and can generate again",
    async (rankCount) => {
      await withSession({ rankCount, threadCount: 2, width: 512, height: 512 }, async (session) => {
        const long = request({ width: 512, height: 512, stepCount: 1000 });
        const controller = new AbortController();
        let abortedAt = 0;
        const hooks = {
          signal: controller.signal,
          onProgress: ({ stage }: { stage: string }) => {
            if (stage !== "denoise" || abortedAt > 0) return;
            abortedAt = performance.now();
            controller.abort();
          },
        };
        const error = await failure(session.image(long, hooks));
        expect(error.code).toBe("cancelled");
        // The bar is the issue's own: Ctrl-C takes effect within a second.
        expect(performance.now() - abortedAt).toBeLessThan(1000);
        expect((await session.image(request())).images[0]).toHaveLength(64 * 96 * 3);
      });
    },
  );

  test("a session can be closed while it generates", async () => {
    const session = await openSession(open);
    const pending = session.image(request({ stepCount: 500 }));
    const outcome = pending.then(() => "done").catch((error: Error) => error.message);
    await Bun.sleep(20);
    let ticks = 0;
    const ticking = setInterval(() => void ticks++, 1);
    await Promise.all([session.close(), session.close()]);
    clearInterval(ticking);
    expect(await outcome).toContain("closed");
    // The event loop went on while the library stopped and freed everything.
    expect(ticks).toBeGreaterThan(0);
  });

  test("a progress handler that throws ends the job before the promise rejects", async () => {
    await withSession({ rankCount: 2, threadCount: 2 }, async (session) => {
      const thrown = new Error("the reader went away");
      const onProgress = ({ stage }: { stage: string }) => {
        if (stage === "denoise") throw thrown;
      };
      const long = request({ stepCount: 1000 });
      await expect(session.image(long, { onProgress })).rejects.toBe(thrown);
      // A job that still ran would make this one "busy".
      expect((await session.image(request())).images[0]).toHaveLength(64 * 96 * 3);
    });
  });

  test("the stages reported are those of the job at work, in order", async () => {
    await withSession({}, async (session) => {
      for (const _ of [1, 2]) {
        const stages: string[] = [];
        const onProgress = ({ stage }: { stage: string }) => {
          if (stages.at(-1) !== stage) stages.push(stage);
        };
        await session.image(request({ stepCount: 20 }), { onProgress });
        const order = ["text", "denoise", "decode"];
        expect(order.filter((stage) => stages.includes(stage))).toEqual(stages);
        expect(stages).toContain("denoise");
      }
    });
  });

  test("an abort before loading loads nothing", async () => {
    const opening = openSession({ ...open, signal: AbortSignal.abort() });
    expect((await failure(opening)).code).toBe("cancelled");
  });

  test("a second image at once is refused", async () => {
    await withSession({}, async (session) => {
      // Its message must not be repeated for the refusal below.
      const odd = await failure(session.image(request({ width: 8 })));
      expect(odd.message).toContain("asked for a latent of 1 x ");
      const first = session.image(request());
      const error = await failure(session.image(request()));
      expect(error.message).toContain("busy with another image");
      await first;
    });
  });
});

test("an image that cannot fit is refused before loading, with what it needs", async () => {
  // The largest latent there is: activations alone take terabytes.
  const error = await failure(openSession({ ...open, width: 131072, height: 131072 }));
  expect(error.code).toBe("no-memory");
  expect(error.message).toMatch(/needs [\d.]+ GiB .* are free\. (What fits: a size of|No smaller)/);
});

describe("damaged weights", () => {
  const unet = "unet/diffusion_pytorch_model.safetensors";
  const norm = "conv_norm_out.weight";
  const edit = (name: string, change: (tensors: Tensors) => void) => () => copyModel(name, change);
  const put = (t: Tensors, name: string, changes: object) =>
    t.set(name, { ...(t.get(name) ?? { dtype: "F16", shape: [0], bytes: noBytes }), ...changes });
  const noBytes = new Uint8Array();
  const text2 = "text_encoder_2/model.safetensors";

  test.each([
    {
      what: "a missing tensor",
      folder: edit(unet, (t) => t.delete(norm)),
      sentence: `tensor ${norm} is missing from`,
    },
    {
      what: "a wrong shape",
      folder: edit(unet, (t) => put(t, norm, { shape: [4, 8] })),
      sentence: `tensor ${norm} has shape { 4, 8 }, and the model's configuration asks for { 32 }`,
    },
    {
      what: "an unusable type",
      folder: edit(unet, (t) => put(t, norm, { dtype: "I16" })),
      sentence: `tensor ${norm} has type I16; weights are read in F32, F16, BF16, F8_E4M3`,
    },
    {
      what: "a text projection that is missing",
      folder: edit(text2, (t) => t.delete("text_projection.weight")),
      sentence: "tensor text_projection.weight is missing from",
    },
    {
      what: "a file cut short",
      folder: () => copyModelBytes(unet, (bytes) => bytes.subarray(0, bytes.length - 100)),
      sentence: "it was cut short. Copy or download it again",
    },
    {
      what: "an empty file",
      folder: () => copyModelBytes(unet, () => noBytes),
      sentence: "is empty",
    },
    {
      what: "a header that is not JSON",
      folder: () => copyModelBytes(unet, (bytes) => bytes.fill(0x20, 8, 20)),
      sentence: "header is not valid JSON",
    },
    {
      what: "a web page in place of weights",
      folder: () => copyModelBytes(unet, () => Buffer.from("<!doctype html><title>404</title>")),
      sentence: "is a web page",
    },
  ])("$what is refused", async ({ folder, sentence }) => {
    const opened = async () => openSession({ ...open, model: await openModelFolder(folder()) });
    const error = await failure(opened());
    expect(error.code).toBe("bad-weights");
    expect(error.message).toContain(sentence);
  });

  const infinity = (t: Tensors, name: string) =>
    put(t, name, { bytes: new Uint8Array(t.get(name)!.bytes).fill(0x7c) });

  test.each([
    {
      stage: "The text encoders gave",
      folder: edit(text2, (t) => infinity(t, "text_model.encoder.layers.0.layer_norm1.bias")),
    },
    { stage: "Step 1 of 3 gave", folder: edit(unet, (t) => infinity(t, "conv_out.bias")) },
    {
      stage: "The VAE's decoder gave",
      folder: edit("vae/diffusion_pytorch_model.safetensors", (t) =>
        infinity(t, "decoder.conv_out.bias"),
      ),
    },
  ])("numbers that are not finite end the image: $stage", async ({ stage, folder }) => {
    const model = await openModelFolder(folder());
    for (const rankCount of [1, 2]) {
      await withSession({ model, rankCount, threadCount: 2 }, async (session) => {
        const error = await failure(session.image(request()));
        expect(error.code).toBe("not-finite");
        expect(error.message).toContain(`${stage} numbers that are not finite`);
      });
    }
  });

  test("keys that real fine-tunes carry are passed over", async () => {
    const folder = copyModel(text2, (t) =>
      t.set("text_model.embeddings.position_ids", {
        dtype: "I64",
        shape: [1, 77],
        bytes: new Uint8Array(77 * 8),
      }),
    );
    await withSession({ model: await openModelFolder(folder) }, async () => {});
  });

  test("the VAE's old attention names give the same image", async () => {
    const names = [
      ["to_q", "query"],
      ["to_k", "key"],
      ["to_v", "value"],
      ["to_out.0", "proj_attn"],
    ] as const;
    const folder = copyModel("vae/diffusion_pytorch_model.safetensors", (t) => {
      for (const [name, tensor] of [...t]) {
        for (const [now, once] of names) {
          if (!name.includes(`.${now}.`)) continue;
          t.delete(name);
          const shape = tensor.shape.length === 2 ? [...tensor.shape, 1, 1] : tensor.shape;
          t.set(name.replace(`.${now}.`, `.${once}.`), { ...tensor, shape });
        }
      }
    });
    const model = await openModelFolder(folder);
    const result = await withSession({ model }, (session) => session.image(request()));
    const whole = await withSession({}, (session) => session.image(request()));
    expect(result.images).toEqual(whole.images);
  });
});
