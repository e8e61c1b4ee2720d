/**
 * The guidance window on the emulated driver: patches that are dealt anew between steps, by peer
 * copies and NCCL, graphs of both kinds of step.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { relativeL2 } from "../support/compare.ts";
import { drawLatents, requestOf, type Work, withSession } from "../support/draw.ts";
import { emulated } from "../support/emulator.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));

const work: Work = { model, width: 32, height: 64, stepCount: 4, guidedSteps: [1, 3] };

test.each([
  { rankCount: 2, syncMode: "full_sync", gpu: emulated({ share: false, transport: "nccl" }) },
  { rankCount: 4, syncMode: "corrected_async_gn", gpu: emulated() },
] as const)("$rankCount ranks, $syncMode, $gpu.transport: as on the CPU", async (how) => {
  const onCpu = await drawLatents({ ...work, ...how, gpu: undefined });
  const withoutGraphs = { ...work, ...how, gpu: { ...how.gpu, graphs: false } };
  const eager = await drawLatents(withoutGraphs);
  expect(relativeL2(eager, onCpu)).toBeLessThanOrEqual(1e-2);
  await withSession({ ...work, ...how }, async (session) => {
    for (let turn = 0; turn < 2; turn++) {
      const { latents, ranks } = await session.image(requestOf({ ...work, ...how }));
      expect(latents).toEqual(eager);
      if (turn === 1) expect(ranks[0]!.graphsReplayed).toBeGreaterThan(0);
    }
  });
});

test("prompts combined by AND, as on the CPU", async () => {
  const rules = { promptSyntax: "a1111" } as const;
  const how: Work = { ...work, rules, rankCount: 2, guidanceRescale: 0.5, syncMode: "full_sync" };
  const weights = [1.2, -0.4];
  const both = async (changes: Partial<Work>) =>
    await withSession({ ...how, ...changes }, async (session) => {
      const request = requestOf({ ...how, ...changes });
      const second = requestOf({ ...how, ...changes, prompt: "a dog BREAK on the grass" });
      const prompt = [request.prompt, second.prompt].flat();
      return (await session.image({ ...request, prompt, promptWeights: [weights] })).latents!;
    });
  const ours = await both({ gpu: emulated() });
  expect(relativeL2(ours, await both({}))).toBeLessThanOrEqual(1e-2);
});
