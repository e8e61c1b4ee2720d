/**
 * `bun run bench estimate`: the estimated times of requests (`pipeline/estimate.ts`) beside those
 * of a real run on the CPU, stage by stage, and the ratio of the two.
 */
import { badOption } from "../errors.ts";
import { estimate, type GenerateRequest, Pipeline, preparePipeline } from "../pipeline.ts";
import { renderTable } from "./report.ts";

const hint = { width: 64, height: 64, pixels: new Uint8Array(64 * 64 * 3) };
const shared = { prompt: "a red house left of a green tree", seeds: [1n] };

const requests: Record<string, GenerateRequest> = {
  "256x256, 8 steps": { ...shared, stepCount: 8 },
  "512x512, 3 steps, from an image": {
    ...{ ...shared, stepCount: 3, strength: 1, image: hint },
    ...{ width: 512, height: 512, resize: "stretch" },
  },
  "256x256, ControlNet, second pass of 512x512": {
    ...{ ...shared, stepCount: 4, hires: 2, hiresStrength: 0.5 },
    ...{ controlnet: ["mini-outlines"], controlImage: [hint] },
  },
};

/** `args`: nothing, or `--model FOLDER` for another model than the bundled one. */
export async function run(args: string[]): Promise<number> {
  const [flag, model] = args;
  if (args.length > 0 && (flag !== "--model" || model === undefined || args.length > 2)) {
    throw badOption("bench estimate takes --model FOLDER alone.");
  }
  const rows: string[][] = [];
  for (const [name, request] of Object.entries(requests)) {
    // The bundled ControlNet fits the bundled model alone.
    if (model !== undefined && request.controlnet) continue;
    for (const row of await compare(request, model)) rows.push([name, ...row]);
  }
  const heads = ["request", "stage", "estimated, ms", "measured, ms", "measured / estimated"];
  process.stdout.write(renderTable(heads, rows));
  return 0;
}

// --- internal ---

async function compare(request: GenerateRequest, model: string | undefined): Promise<string[][]> {
  const devices = { device: "cpu", rankCount: 1 } as const;
  const prepared = await preparePipeline({ model, devices, first: request });
  const { passes } = estimate(prepared);
  await using pipeline = await Pipeline.load(prepared);
  const { timings } = await pipeline.generate(request);
  const parts = passes.flatMap((pass) => pass.parts);
  const measured = {
    text: timings.textMs,
    encode: timings.encodeMs,
    denoise: timings.denoiseMs,
    decode: timings.decodeMs,
  };
  const rows = Object.entries(measured).map(([stage, ms]) => {
    const own = parts.filter((part) => part.stage === stage);
    const seconds = own.reduce((sum, part) => sum + part.count * (part.seconds ?? 0), 0);
    return { stage, estimated: 1e3 * seconds, ms };
  });
  const all = {
    stage: "in all",
    estimated: rows.reduce((sum, { estimated }) => sum + estimated, 0),
    ms: rows.reduce((sum, { ms }) => sum + ms, 0),
  };
  return [...rows.filter(({ ms }) => ms > 0), all].map(({ stage, estimated, ms }) => [
    stage,
    estimated.toFixed(1),
    ms.toFixed(1),
    (ms / estimated).toFixed(2),
  ]);
}
