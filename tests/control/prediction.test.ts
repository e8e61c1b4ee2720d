/**
 * What a user says about a model's training: it takes the place of the config's, is checked, and
 * settings that do not go with it are named.
 */
import { describe, expect, test } from "bun:test";
import { parseSchedulerConfig } from "../../src/models/config.ts";
import { withPrediction } from "../../src/models/prediction.ts";
import { singleFileScheduler } from "../../src/models/single-file/scheduler.ts";
import { planRequest } from "../../src/pipeline/request.ts";
import { preparePipeline } from "../../src/pipeline.ts";
import { asFlag, asProperty } from "../../src/settings/values.ts";
import goldenScheduler from "../fixtures/golden/model/scheduler/scheduler_config.json";
import { fakeModel } from "../support/fake-model.ts";
import { refusal } from "../support/refusal.ts";

const model = fakeModel();

describe("the model's config", () => {
  const own = { predictionType: "epsilon", rescaleBetasZeroSnr: false } as const;

  test.each([
    [{}, own],
    [{ predictionType: "auto" }, own],
    [{ predictionType: "v_prediction" }, { ...own, predictionType: "v_prediction" }],
    [{ predictionType: "sample" }, { ...own, predictionType: "sample" }],
    [{ rescaleBetasZeroSnr: true }, { ...own, rescaleBetasZeroSnr: true }],
  ] as const)("with %j", (options, expected) => {
    const { scheduler } = withPrediction(model, options, asProperty);
    expect(scheduler).toEqual({ ...model.scheduler, ...expected });
  });

  test("a config with zero SNR, without it", () => {
    const zero = { ...model, scheduler: { ...model.scheduler, rescaleBetasZeroSnr: true } };
    const { scheduler } = withPrediction(zero, { rescaleBetasZeroSnr: false }, asProperty);
    expect(scheduler.rescaleBetasZeroSnr).toBe(false);
  });

  test("other values are refused before anything else", async () => {
    const type = { predictionType: "velocity" as "epsilon" };
    expect(await refusal(() => preparePipeline({ model, ...type }), "bad-option")).toBe(
      'predictionType must be auto, epsilon, v_prediction or sample, not "velocity".',
    );
    const zero = { rescaleBetasZeroSnr: 1 as unknown as boolean };
    expect(await refusal(() => preparePipeline({ model, ...zero }), "bad-option")).toBe(
      "rescaleBetasZeroSnr must be true or false, not 1.",
    );
  });
});

describe("a checkpoint in one file", () => {
  const training = { predictionType: "epsilon", rescaleBetasZeroSnr: false } as const;

  test("has the scheduler of SDXL's folder", () => {
    const own = parseSchedulerConfig("scheduler_config.json", goldenScheduler);
    expect(singleFileScheduler("x.safetensors", training)).toEqual(own);
  });

  test("takes trailing steps with zero terminal SNR, and then nothing is warned about", () => {
    const zero = { predictionType: "v_prediction", rescaleBetasZeroSnr: true } as const;
    const scheduler = singleFileScheduler("x.safetensors", zero);
    expect(scheduler).toMatchObject({ ...zero, timestepSpacing: "trailing" });
    const { schedule, warnings } = planRequest({ prompt: "a" }, { ...model, scheduler }, 1);
    expect(schedule.timesteps[0]).toBe(999);
    expect(warnings).toEqual([]);
  });
});

describe("zero terminal SNR", () => {
  const warningsOf = (
    predictionType: "epsilon" | "v_prediction" | "sample",
    timestepSpacing: "leading" | "trailing" | "linspace" | undefined,
    stepCount = 25,
  ) => {
    const options = { predictionType, rescaleBetasZeroSnr: true };
    const zero = withPrediction(model, options, asFlag);
    return planRequest({ prompt: "a", timestepSpacing, stepCount }, zero, 1, asFlag).warnings;
  };
  const begins =
    "The noise levels end in pure noise at timestep 999, but the steps begin at 961: " +
    "--timestep-spacing trailing begins there.";
  const predicts =
    "The noise levels end in pure noise, where a prediction of the noise says nothing about the " +
    "image: --prediction-type v_prediction is what such models have.";

  test.each([
    ["v_prediction", "trailing", []],
    ["v_prediction", "linspace", []],
    ["sample", "trailing", []],
    // The config's own spacing.
    ["v_prediction", undefined, [begins]],
    ["v_prediction", "leading", [begins]],
    ["epsilon", "trailing", [predicts]],
    ["epsilon", "leading", [predicts, begins]],
  ] as const)("%s with spacing %s", (predictionType, spacing, warnings) => {
    expect(warningsOf(predictionType, spacing)).toEqual([...warnings]);
  });

  test("leading steps that begin there after all are not warned about", () => {
    expect(warningsOf("v_prediction", "leading", 1000)).toEqual([]);
  });

  test("nothing is said of other models", () => {
    expect(planRequest({ prompt: "a" }, model, 1, asFlag).warnings).toEqual([]);
  });
});
