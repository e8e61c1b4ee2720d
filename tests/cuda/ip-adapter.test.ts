/**
 * Images as prompts on the emulated driver: a plain adapter and a plus one in a part of the steps,
 * on two ranks, with graphs of the steps and without.
 */
import { afterAll, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import type { GenerateRequest } from "../../src/pipeline.ts";
import { expectAsOnCpu } from "../support/emulated-latents.ts";
import { ipImage, removeIpAdapters, writeIpAdapters } from "../support/ip-adapter-files.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);
afterAll(removeIpAdapters);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));

test("as on the CPU, with graphs and without", async () => {
  const files = writeIpAdapters();
  const request: GenerateRequest = {
    ...{ prompt: "a red circle", seeds: [5n], stepCount: 3, width: 32, height: 64 },
    ...{ guidanceScale: 3, splitBatch: false, syncMode: "full_sync", wantLatents: true },
    ...{ ipAdapter: [files.plain, files.plus], ipImage: [ipImage(0), ipImage(1)], ipEnd: [1, 0.7] },
  };
  await expectAsOnCpu(model, request);
});
