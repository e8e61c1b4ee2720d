/**
 * ControlNets and a T2I-Adapter on two ranks of the emulated driver: graphs as without, in f16 near
 * the CPU.
 */
import { afterAll, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import type { GenerateRequest } from "../../src/pipeline.ts";
import { controlHint } from "../support/control-hint.ts";
import { controlFolder, removeControls } from "../support/control-networks.ts";
import { expectAsOnCpu } from "../support/emulated-latents.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);
afterAll(removeControls);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const size = { width: 32, height: 64 };

const kinds = ["plain", "small", "adapter"] as const;

test("as on the CPU, with graphs and without", async () => {
  const request: GenerateRequest = {
    ...{ prompt: "a red circle", seeds: [5n], stepCount: 3, ...size, guidanceScale: 1 },
    ...{ syncMode: "full_sync", wantLatents: true },
    controlnet: kinds.map((kind) => controlFolder(kind)),
    ...{ controlImage: [controlHint(size.width, size.height)], controlScale: [0.7] },
    controlStart: [0, 0.3, 0],
  };
  await expectAsOnCpu(model, request);
});
