/**
 * Guidance that differs between steps: the factor of the image's scale.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { latentsOf, requestOf, type Work, withSession } from "../support/draw.ts";

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));

test("a step's factor times the scale is the step's guidance", async () => {
  const work: Work = { model, width: 32, height: 32, guidanceRescale: 0.5, guidanceScale: 6 };
  await withSession(work, async (session) => {
    const request = requestOf(work);
    const steps = request.steps.map((step) => ({ ...step, guidanceFactor: 0.5 }));
    const halved = latentsOf(await session.image({ ...request, steps }));
    const asked = latentsOf(await session.image({ ...request, guidanceScale: 3 }));
    expect(halved).toEqual(asked);
    expect(latentsOf(await session.image(request))).not.toEqual(asked);
  });
});
