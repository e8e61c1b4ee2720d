/**
 * The fields of answers as OpenAI's package declares them, and what requests become.
 */
import { describe, expect, test } from "bun:test";
import type { JobSpec } from "../../src/serve/jobs/types.ts";
import { dialectApp, keysOf, sent, words } from "../support/dialect-app.ts";
import { colouredPng, holed, squareMask, turnedJpeg } from "../support/input-images.ts";

type Json = Record<string, unknown>;

describe("OpenAI", () => {
  const ask = async (fields: Json) => await sent("/v1/images/generations", fields);

  test("answers have the fields of its package", async () => {
    const { answer } = await ask({ prompt: "a", n: 2 });
    expect(keysOf(answer)).toEqual(
      words("background created data output_format quality size usage"),
    );
    expect(answer.data).toHaveLength(2);
    expect(keysOf(answer.usage)).toEqual(
      words("input_tokens input_tokens_details output_tokens total_tokens"),
    );
  });

  test.each<[Json, Partial<JobSpec["request"]>]>([
    [{ size: "96x64" }, { width: 96, height: 64 }],
    [{ quality: "hd" }, { quality: "exact" }],
    [{ quality: "medium" }, { quality: "balanced" }],
    [{ quality: "low" }, { quality: "fast" }],
    [
      { steps: 9, cfg_scale: 3, sampler: "Euler a" },
      { stepCount: 9, guidanceScale: 3 },
    ],
    [{ seed: "9223372036854775807" }, { seed: 2n ** 63n - 1n }],
    [
      { loras: ["style.safetensors:0.5"] },
      { loras: [{ file: "style", scale: 0.5, textScale: 0.5 }] },
    ],
  ])("%j becomes settings", async (fields, settings) => {
    const { status, spec } = await ask({ prompt: "a", ...fields });
    expect(status).toBe(200);
    expect(spec!.request).toMatchObject(settings as object);
  });

  test("an edit is of the size that its image has once it is turned", async () => {
    const { app, jobs } = dialectApp();
    const body = new FormData();
    body.append("prompt", "a");
    body.append("image", new Blob([await turnedJpeg()]));
    const response = await app.request("/v1/images/edits", { method: "POST", body });
    expect(response.status).toBe(200);
    expect(jobs.submitted[0]!.request).toMatchObject({ width: 64, height: 96 });
  });

  test.each<[string, (image: string, mask: string) => Json]>([
    ["as texts", (image, mask) => ({ image, mask })],
    [
      "as addresses in objects",
      (image, mask) => ({
        images: [{ image_url: `data:image/png;base64,${image}` }],
        mask: { image_url: `data:image/png;base64,${mask}` },
      }),
    ],
  ])("an edit in JSON has its images %s", async (_, fields) => {
    const size = { width: 96, height: 64 };
    const [image, mask] = [await colouredPng(size), await holed(await squareMask(size))];
    const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
    const { post, jobs } = dialectApp();
    const body = { prompt: "a", strength: 0.5, ...fields(text(image), text(mask)) };
    const response = await post("/v1/images/edits", body);
    expect(response.status).toBe(200);
    expect(jobs.submitted[0]!.request).toMatchObject({ ...size, strength: 0.5 });
    expect(jobs.inputs[0]!.image).toEqual(image);
    expect(jobs.inputs[0]!.mask).not.toBeNull();
  });

  test("what networks read comes in base64 beside their settings", async () => {
    const { post, jobs } = dialectApp();
    const image = await colouredPng({ width: 8, height: 8 });
    const text = Buffer.from(image).toString("base64");
    const named = { refiner: "other", denoising_end: 0.8, vae: "fp16-fix.safetensors" };
    const seen = { ip_adapter: ["ip-adapter_sdxl"], ip_images: [`data:image/png;base64,${text}`] };
    const steered = { controlnet: ["canny"], control_images: [text] };
    const body = { prompt: "a", ...named, ...seen, ...steered };
    expect((await post("/v1/images/generations", body)).status).toBe(200);
    expect(jobs.submitted[0]).toMatchObject({ refiner: "other", vae: "fp16-fix" });
    expect(jobs.submitted[0]!.request).toMatchObject({ ipAdapter: ["ip-adapter_sdxl"] });
    expect(jobs.inputs[0]).toMatchObject({ controlImages: [image], ipImages: [image] });
  });

  test.each<[Json, string]>([
    [{}, "image"],
    [{ image: "https://a.example/b.png" }, "image"],
    [{ images: [{ file_id: "file-1" }] }, "image"],
    [{ image: "bm8=" }, "image"],
    [{ image: "AAAA", images: ["AAAA"] }, "image"],
  ])("an edit of %j is refused", async (fields, param) => {
    const { status, answer } = await sent("/v1/images/edits", { prompt: "a", ...fields });
    expect([status, (answer.error as Json).param]).toEqual([400, param]);
  });

  test.each<[Json, string, string]>([
    [{ prompt: undefined }, "prompt", "missing_required_parameter"],
    [{ background: "transparent" }, "background", "invalid_value"],
    [{ model: "gpt-image-1" }, "model", "model_not_found"],
    [{ loras: ["/etc/passwd"] }, "loras", "invalid_value"],
    [{ image: "/etc/passwd" }, "image", "unknown_parameter"],
    [{ size: "64" }, "size", "invalid_value"],
    [{ refiner: "x" }, "refiner", "model_not_found"],
    [{ vae: "x" }, "vae", "invalid_value"],
    [{ ip_images: ["https://a.example/b.png"] }, "ip_images", "invalid_value"],
  ])("%j is refused", async (fields, param, code) => {
    const { status, answer } = await ask({ prompt: "a", ...fields });
    expect(status).toBeOneOf([400, 404]);
    expect(keysOf(answer.error)).toEqual(words("message type param code"));
    expect(answer.error).toMatchObject({ param, code, type: "invalid_request_error" });
  });
});
