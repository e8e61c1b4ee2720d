/**
 * Steps that reuse deep features and cross-attention on the emulated driver: by peer copies and
 * NCCL, graphs of each kind of step, patches that are dealt anew at the gate.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { relativeL2 } from "../support/compare.ts";
import { draw, requestOf, type Work, withSession } from "../support/draw.ts";
import { emulated } from "../support/emulator.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));

const deep = ["full", "cached", "cached", "full", "full", "cached", "cached"] as const;
const cross = ["compute", "compute", "compute", "keep", "reuse", "reuse", "reuse"] as const;
const work: Work = {
  ...{ model, width: 32, height: 64, stepCount: deep.length, guidedSteps: [0, 4], outerSkips: 1 },
  reuse: deep.map((each, i) => ({ deep: each, cross: cross[i]! })),
};

test.each([
  { rankCount: 2, syncMode: "sync_gn", gpu: emulated({ share: false, transport: "nccl" }) },
  {
    ...{ rankCount: 4, syncMode: "corrected_async_gn", extrapolateHalos: true, freshDeep: true },
    gpu: emulated(),
  },
] as const)("$rankCount ranks, $syncMode, $gpu.transport: as on the CPU", async (how) => {
  const onCpu = await draw({ ...work, ...how, gpu: undefined });
  await withSession({ ...work, ...how }, async (session) => {
    const [first, second] = [
      await session.image(requestOf({ ...work, ...how })),
      await session.image(requestOf({ ...work, ...how })),
    ];
    expect(first.stepParts).toEqual(onCpu.stepParts);
    expect(relativeL2(first.latents!, onCpu.latents!)).toBeLessThanOrEqual(1e-2);
    expect(second.latents).toEqual(first.latents);
    expect(second.ranks[0]!.graphsReplayed).toBeGreaterThan(0);
  });
});
