/**
 * Requests to every dialect and to the server's own API: bodies, forms, headers, paths.
 */
import * as v from "valibot";
import { requestSchema } from "../../../src/settings/request-schema.ts";
import { defaultPrompt } from "../../support/comfy-prompt.ts";
import { dialectApp } from "../../support/dialect-app.ts";
import { mutateBytes, mutateJson, mutateText } from "../mutate.ts";
import type { Random } from "../random.ts";
import { target } from "../target.ts";

interface Sent {
  method: string;
  path: string;
  headers: [string, string][];
  body?: string | Uint8Array<ArrayBuffer> | undefined;
}

const pixel = [
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAE",
  "hQGAhKmMIQAAAABJRU5ErkJggg==",
].join("");

const dataUrl = `data:image/png;base64,${pixel}`;

const bodies: [path: string, body: unknown][] = [
  ["/v1/images/generations", { prompt: "a", n: 1, size: "64x64", stream: false, seed: 3 }],
  [
    "/sdapi/v1/txt2img",
    { prompt: "a", steps: 2, cfg_scale: 7, sampler_name: "Euler a", override_settings: {} },
  ],
  ["/sdapi/v1/img2img", { init_images: [pixel], denoising_strength: 0.5 }],
  ["/sdapi/v1/png-info", { image: pixel }],
  ["/sdapi/v1/options", { sd_model_checkpoint: "mini", samples_format: "png" }],
  ["/prompt", { prompt: defaultPrompt(), client_id: "a" }],
  ["/queue", { delete: ["one"], clear: false }],
  ["/history", { delete: ["one"] }],
];
/** Bodies whose images are decoded, which takes a hundred times as long. */
const slowBodies: typeof bodies = [
  ["/v1/images/edits", { prompt: "a", image: dataUrl, mask: dataUrl, size: "auto" }],
  ["/sdapi/v1/img2img", { init_images: [pixel], mask: pixel, inpainting_mask_invert: 1 }],
  ["/sdapi/v1/extra-single-image", { image: pixel, upscaler_1: "Lanczos", upscaling_resize: 2 }],
];
const gets = [
  ...[
    "/v1/models",
    "/sdapi/v1/progress",
    "/sdapi/v1/samplers",
    "/history/one",
    "/object_info/KSampler",
  ],
  ...[
    "/view?filename=a&type=input&subfolder=..",
    "/view?preview=webp;90&filename=x",
    "/models/loras",
  ],
];
const form = [
  ...["--b", 'Content-Disposition: form-data; name="image"; filename="../a.png"'],
  ...["Content-Type: image/png", "", "PNG", "--b"],
  ...['Content-Disposition: form-data; name="overwrite"', "", "true", "--b--", ""],
].join("\r\n");
const headerNames = ["Content-Type", "Accept", "Range", "If-None-Match", "X-Client", "Origin"];
const types = ["application/json", "multipart/form-data; boundary=b", "text/plain", ""];

function request(random: Random): Sent {
  const headers: [string, string][] = [["Content-Type", random.pick(types)]];
  if (random.once(3)) {
    const words = mutateText(random, "bytes=0-1", ["*/*", "-", "=", ",", ";", '"']);
    headers.push([random.pick(headerNames), words.replace(/[^\x20-\x7e]/g, "")]);
  }
  const kind = random.below(10);
  if (kind === 0) {
    const path = mutateText(random, random.pick(gets), ["%2e%2e/", "/", "?", "&", "=", "%", "#"]);
    return { method: random.pick(["GET", "HEAD", "DELETE"]), path, headers };
  }
  if (kind === 1) {
    const body = Uint8Array.from(mutateBytes(random, Buffer.from(form)));
    const uploads = ["/upload/image", "/upload/mask"];
    const path = random.once(20) ? "/v1/images/edits" : random.pick(uploads);
    return { method: "POST", path, headers: [["Content-Type", types[1]!]], body };
  }
  const [path, json] = random.pick(random.once(50) ? slowBodies : bodies);
  const keys = ["loras", "alwayson_scripts", "scheduler", "seed", "model"];
  const body = mutateJson(random, json, keys);
  return { method: "POST", path, headers: [["Content-Type", types[0]!]], body };
}

const { app, jobs } = dialectApp();

export const httpTarget = target("http", request, async (sent) => await answer(sent));

async function answer(sent: Sent): Promise<void> {
  const { method, headers, body } = sent;
  const url = `http://localhost${sent.path.startsWith("/") ? "" : "/"}${sent.path}`;
  if (!URL.canParse(url)) return;
  const init = { method, headers, ...(body !== undefined && { body }) };
  const response = await app.request(new Request(url, init));
  const text = await response.text();
  if (response.status === 500) throw new Error(`500: ${text.slice(0, 500)}`);
  jobs.inputs.length = 0;
  for (const { dialectData } of jobs.submitted.splice(0)) JSON.stringify(dialectData);
}

const own = { prompt: "a", width: 64, num_inference_steps: 4, seed: 7, loras: ["a.safetensors:1"] };

/** The request of a job, as the own API and the job store read it. */
export const requestTarget = target(
  "requests",
  (random) => mutateJson(random, own, ["guidance_scale", "num_images", "scheduler", "balance"]),
  (text) => {
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch {
      return;
    }
    v.safeParse(requestSchema, json);
  },
);
