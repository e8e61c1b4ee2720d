/**
 * The server's own API behind its checks: jobs in JSON and as forms, the gallery, the log-in, and
 * the headers that say who asks and from where.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { badOption } from "../../../src/errors.ts";
import { encodeFile } from "../../../src/image.ts";
import { createApp } from "../../../src/serve/app.ts";
import { Metrics } from "../../../src/serve/metrics.ts";
import { Outputs } from "../../../src/serve/outputs.ts";
import { FakeJobs, fakeCapabilities, fakeInfotext } from "../../support/fake-jobs.ts";
import { mutateBytes, mutateJson, mutateText } from "../mutate.ts";
import type { Random } from "../random.ts";
import { target } from "../target.ts";

interface Sent {
  method: string;
  path: string;
  headers: [string, string][];
  body?: string | Uint8Array<ArrayBuffer>;
}

const folder = mkdtempSync(join(tmpdir(), "basedxl-fuzz-"));
const image = join(folder, "a.png");
const black = { width: 8, height: 8, pixels: new Uint8Array(8 * 8 * 3) };
const { bytes } = await encodeFile("png", black, { texts: { parameters: fakeInfotext } });
const jobs = new FakeJobs();
const zero = () => 0;
const app = createApp({
  config: {
    ...{ host: "127.0.0.1", allowHosts: ["basedxl.test"], allowOrigins: ["https://a.test"] },
    ...{ apiKeys: [{ name: "one", key: "secret" }], maxBody: 1, maxPixels: 1 },
  },
  service: jobs,
  upscaling: null,
  capabilities: fakeCapabilities(),
  catalog: {
    models: [],
    model: () => {
      throw badOption("The image is of no model here.");
    },
  } as never,
  outputs: Outputs.open(folder),
  metrics: new Metrics({
    ...{ queueLength: zero, runningCount: zero, unfinishedCount: zero, loadedModels: zero },
  }),
  log: { debug() {}, info() {}, warn() {}, error() {} },
  whyNotReady: () => null,
  onRemove() {},
});

const job = {
  ...{ model: "mini", priority: 1, preview_steps: 2, format: "png", quality: 90 },
  request: { prompt: "a", width: 64, num_inference_steps: 4, seed: 7, controlnet: ["canny:0.5"] },
};
const pixel = "iVBORw0KGgo=";
const bodies: [path: string, body: unknown][] = [
  ["/api/v1/jobs", job],
  ["/api/v1/jobs", { ...job, image: pixel, mask: pixel, control_images: [pixel] }],
  ["/api/v1/cancel", { what: "rest", mine: true }],
  ["/api/v1/login", { key: "secret" }],
];
const part = (name: string, rest: string) =>
  `--b\r\nContent-Disposition: form-data; name="${name}"${rest}\r\n`;
const form = [
  part("job", `\r\n\r\n${JSON.stringify(job)}`),
  part("image", `; filename="../a.png"\r\nContent-Type: image/png\r\n\r\nPNG`),
  part("control_image", `; filename*=UTF-8''a.png\r\n\r\nPNG`),
  "--b--\r\n",
].join("");
const paths = [
  ...["/api/v1/jobs?state=done&limit=10&before=x", "/api/v1/jobs/ID", "/api/v1/jobs/ID/images/0"],
  ...[
    "/api/v1/jobs/ID/events",
    "/api/v1/events",
    "/api/v1/images?limit=5&before=b.png",
    "/metrics",
  ],
  ...["/api/v1/images/a.png", "/api/v1/images/a.png/metadata", "/api/v1/images/..%2fa.png"],
  ...["/api/v1/capabilities", "/health", "/openapi.json", "/docs"],
];
const pathPieces = ["%2e%2e/", "/", "?", "&", "=", "%", "#", "%00", "limit=", "a.png", "..", "%ff"];
const headers: [name: string, text: string][] = [
  ["Authorization", "Bearer secret"],
  ["Authorization", "Basic YTpzZWNyZXQ="],
  ["Cookie", "basedxl_login=0123; basedxl_client=abc"],
  ["Host", "[::1]:80"],
  ["Host", "basedxl.test"],
  ["Origin", "https://a.test"],
  ["Origin", "null"],
  ["Last-Event-ID", "7"],
  ["Range", "bytes=0-1"],
  ["If-None-Match", '"0"'],
  ["Content-Length", "10"],
  ["Content-Type", "multipart/form-data; boundary=b"],
  ["X-Forwarded-Proto", "https"],
];
const headerPieces = ["=", ";", ",", '"', "[", "]", ":", " ", "Bearer ", "-", "0", "://", "%"];

export const apiTarget = target("api", request, async ({ path: given, ...init }: Sent) => {
  const path = given.replace("ID", jobs.list({ limit: 1 })[0]?.id ?? "0");
  const url = `http://localhost${path.startsWith("/") ? "" : "/"}${path}`;
  if (!URL.canParse(url)) return;
  const response = await app.request(new Request(url, init));
  if (response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
    await response.body?.cancel();
  } else {
    const text = await response.text();
    if (response.status >= 500) throw new Error(`${response.status}: ${text.slice(0, 500)}`);
  }
  // What a request deletes is there for the next one.
  if (init.method === "DELETE") writeFileSync(image, bytes);
  jobs.inputs.length = 0;
  jobs.submitted.length = 0;
});

// --- internal ---

function request(random: Random): Sent {
  const given = new Map(random.once(20) ? [] : [headers[0]!]);
  given.set("Host", "localhost");
  for (let count = random.below(3); count > 0; count--) {
    const [name, text] = random.pick(headers);
    const odd = random.once(2) ? mutateText(random, text, headerPieces) : text;
    given.set(name, odd.replace(/[^\x20-\x7e]/g, "").trim());
  }
  const kind = random.below(8);
  if (kind < 3) {
    const chosen = random.pick(paths);
    const path = random.once(2) ? mutateText(random, chosen, pathPieces) : chosen;
    const method = random.pick(["GET", "GET", "HEAD", "DELETE", "OPTIONS"]);
    return { method, path, headers: [...given] };
  }
  if (random.once(60)) {
    const body = Uint8Array.from(mutateBytes(random, Buffer.from(bytes)));
    return { method: "POST", path: "/api/v1/metadata", headers: [...given], body };
  }
  if (kind === 3) {
    given.set("Content-Type", "multipart/form-data; boundary=b");
    const body = Uint8Array.from(mutateBytes(random, Buffer.from(form)));
    return { method: "POST", path: "/api/v1/jobs", headers: [...given], body };
  }
  const [path, json] = random.pick(bodies);
  if (!random.once(20)) given.set("Content-Type", "application/json");
  const keys = ["vae", "image", "mask", "control_images", "client", "dialect", "inputs"];
  return { method: "POST", path, headers: [...given], body: mutateJson(random, json, keys) };
}

process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
