/**
 * Previews show the clean latent that a step predicts: the factors of latent and model output
 * against the samplers' own last step, and the pixels against a run whose last step makes that
 * latent.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { cleanMixesOf, previewPixels } from "../../src/pipeline/preview.ts";
import { type ImageRequest, openSession } from "../../src/pipeline/session.ts";
import { update } from "../../src/samplers/coefficients.ts";
import { makeSchedule } from "../../src/schedule.ts";
import { predictionTypes } from "../../src/settings/names.ts";

const golden = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));

test.each(["euler", "euler_a", "dpmpp_2m", "lcm"] as const)(
  "the last step of %s ends at the latent that the preview would show",
  (name) => {
    for (const predictionType of predictionTypes) {
      const config = { ...golden.scheduler, predictionType };
      const { steps } = makeSchedule(name, config, { stepCount: 8 });
      const last = steps.at(-1)!;
      const { sample, modelOutputs } = last.latent;
      const [p, q] = cleanMixesOf(steps, config).slice(-2);
      // LCM weighs its estimate with the latent at a boundary that 8 steps hardly see: 1e-4.
      const digits = name === "lcm" ? 3 : 4;
      expect(p).toBeCloseTo(sample + modelOutputs[0] * last.outputFromSample, digits);
      expect(q).toBeCloseTo(modelOutputs[0] * last.outputFromModel, digits);
    }
  },
);

test("zero terminal SNR gives finite factors", () => {
  const trained = { rescaleBetasZeroSnr: true, predictionType: "v_prediction" } as const;
  const config = { ...golden.scheduler, ...trained };
  for (const name of ["euler", "ddim"] as const) {
    const { steps } = makeSchedule(name, config, { stepCount: 5, timestepSpacing: "trailing" });
    for (const factor of cleanMixesOf(steps, config)) expect(factor).toBeFinite();
  }
});

test("the pixels are those of the predicted latent, with guidance and its rescale", async () => {
  const { steps, initNoiseSigma } = makeSchedule("euler_a", golden.scheduler, { stepCount: 4 });
  const ids = new Int32Array(77).fill(1);
  const tokens = { ids, ids2: ids, endIndex2: 3 };
  const request: ImageRequest = {
    ...{ width: 64, height: 64, prompt: tokens, negative: null, guidanceScale: 4, seeds: [5n] },
    ...{ guidanceRescale: 0.7, steps, initNoiseSigma, syncMode: "full_sync", warmupSteps: 0 },
    ...{ splitBatch: false, wantLatents: true },
  };
  const { width, height } = request;
  const session = await openSession({
    ...{ model: golden, rankCount: 1, threadCount: 1, width, height },
    ...{ guidance: true, splitBatch: false, imageCount: 1 },
  });
  const shown: Uint8Array[] = [];
  await session.image(
    { ...request, previewSteps: 3 },
    { onPreview: ({ images }) => void shown.push(...images) },
  );
  const third = steps[2]!;
  const [p, q] = cleanMixesOf(steps, golden.scheduler).slice(4, 6);
  const clean = {
    ...{ ...third, outputFromSample: 0, outputFromModel: 1 },
    latent: update({ sample: p!, modelOutputs: [q!] }),
  };
  const { latents } = await session.image({ ...request, steps: [...steps.slice(0, 2), clean] });
  await session.close();
  const nhwc = new Float32Array(latents!.length).map((_, i) => latents![(i % 4) * 64 + (i >> 2)]!);
  expect(shown).toEqual([previewPixels(nhwc, 4)]);
});
