/**
 * Samplers against diffusers: tables of timesteps and sigmas, whole runs with a known model output
 * (tests/fixtures/schedules.json, made by tests/reference), and the reference model's own first
 * steps.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { keptOf } from "../../src/bench/support/references.ts";
import { readSafetensors, tensorOf } from "../../src/bench/support/safetensors.ts";
import { BasedXLError } from "../../src/errors.ts";
import { parseSchedulerConfig } from "../../src/models/config.ts";
import { roundHalfEven } from "../../src/samplers/spacing.ts";
import {
  makeSchedule,
  type Schedule,
  type ScheduleOptions,
  samplerOfModel,
  schedulerNameOfClass,
  unusedScheduleOptions,
} from "../../src/schedule.ts";
import { type Scheduler, samplerRows, schedulers } from "../../src/settings/samplers.ts";
import { relativeL2 } from "../support/compare.ts";
import { runSteps } from "../support/run-steps.ts";

const fixtures = join(import.meta.dir, "../fixtures");
const readJson = (path: string) => JSON.parse(readFileSync(join(fixtures, path), "utf8"));

type Settings = Record<string, unknown>;

interface Case {
  name: Scheduler;
  count: number;
  settings: Settings;
  timesteps: [number, number][];
  sigmas?: [number, number][];
  init_noise_sigma: number;
  latents: Record<string, Record<string, number[]>>;
}

const cases: Case[] = readJson("schedules.json");
const sdxl: Settings = {
  ...readJson("golden/model/scheduler/scheduler_config.json"),
  clip_sample: false,
  set_alpha_to_one: false,
};

function configWith(settings: Settings) {
  return parseSchedulerConfig("scheduler_config.json", { ...sdxl, ...settings });
}

function schedule(
  name: Scheduler,
  settings: Settings,
  options: ScheduleOptions | number,
): Schedule {
  const config = configWith(settings);
  return makeSchedule(name, config, typeof options === "number" ? { stepCount: options } : options);
}

function scheduleOf(entry: Case, predictionType = "epsilon"): Schedule {
  const settings = { ...entry.settings, prediction_type: predictionType };
  const useKarrasSigmas = entry.settings.use_karras_sigmas === true || undefined;
  return schedule(entry.name, settings, { stepCount: entry.count, useKarrasSigmas });
}

const largestError = (ours: Float32Array, recorded: [number, number][]) =>
  Math.max(
    ...recorded.map(([i, decimal]) => {
      // The shortest decimal that is this f32.
      const value = Math.fround(decimal);
      const difference = Math.abs(ours[i]! - value);
      return difference === 0 ? 0 : difference / Math.abs(value);
    }),
  );

describe("equal to diffusers", () => {
  const titleOf = ({ name, settings }: Case) =>
    [name, ...Object.entries(settings).flatMap(([k, v]) => (sdxl[k] === v ? [] : `${k}=${v}`))]
      .join(" ")
      .slice(0, 100);
  const groups = Map.groupBy(cases, titleOf);
  for (const [title, group] of groups) {
    test(title, () => {
      for (const entry of group) {
        const what = `${entry.count} steps`;
        const ours = scheduleOf(entry, Object.keys(entry.latents)[0]);
        expect(ours.steps, what).toHaveLength(entry.count);
        expect(ours.timesteps, what).toHaveLength(entry.count);
        // Those made from sigmas inherit a last bit of the square root: see below.
        const bar = title.includes("karras") ? 1.2e-7 : 0;
        expect(largestError(ours.timesteps, entry.timesteps), what).toBeLessThanOrEqual(bar);
        const sigmas = entry.sigmas ?? [];
        if (entry.sigmas) expect(ours.sigmas).toHaveLength(entry.count + 1);
        else expect(ours.sigmas).toBeNull();
        // PyTorch's square root is itself off by a last bit (1.2e-7) here and there.
        if (sigmas.length > 0) {
          expect(largestError(ours.sigmas!, sigmas), what).toBeLessThanOrEqual(2.5e-7);
        }
        expect(ours.initNoiseSigma / entry.init_noise_sigma - 1, what).toBeCloseTo(0, 6);
        for (const [prediction, kept] of Object.entries(entry.latents)) {
          const latents = runSteps(scheduleOf(entry, prediction));
          for (const [index, latent] of Object.entries(kept)) {
            const error = relativeL2(latents[Number(index)]!, latent);
            // The reference runs in f32: many steps, or a first sigma of 4096, cost it digits.
            const long = entry.count > 50 || entry.settings.rescale_betas_zero_snr === true;
            const latentBar = long ? 3e-5 : 1e-5;
            expect(error, `${what}, ${prediction}, step ${index}`).toBeLessThanOrEqual(latentBar);
          }
        }
      }
    });
  }
});

describe("the reference model's runs", () => {
  const golden = readSafetensors(join(fixtures, "golden", "golden.safetensors"));
  const runs = readJson("golden/golden.json").runs as {
    name: string;
    scheduler: string;
    steps: number;
    config: Settings;
  }[];

  for (const run of runs) {
    const settings = { ...run.config, _class_name: run.scheduler };
    const { name } = samplerOfModel(configWith(settings));
    test(`timesteps and sigmas of ${run.name}`, () => {
      const ours = schedule(name, settings, run.steps);
      const timesteps = tensorOf(golden, `run.${run.name}.timesteps`).data;
      const relative = (a: Float32Array, b: Float32Array) =>
        Math.max(...a.map((x, i) => (x === b[i] ? 0 : Math.abs(x - b[i]!) / b[i]!)));
      expect(ours.timesteps).toHaveLength(timesteps.length);
      const bar = run.name === "euler_karras" ? 1.2e-7 : 0;
      expect(relative(ours.timesteps, timesteps)).toBeLessThanOrEqual(bar);
      if (ours.sigmas === null) return;
      const sigmas = tensorOf(golden, `run.${run.name}.sigmas`).data;
      expect(ours.sigmas).toHaveLength(sigmas.length);
      // One unit in the last place: the recording machine's square root differs there.
      expect(relative(ours.sigmas!, sigmas)).toBeLessThanOrEqual(1.2e-7);
    });
  }

  test("the first step of ddim is euler's in other units, as in the recorded latents", () => {
    // Both start from the same noise n and see the same first model output e.
    const first = (name: Scheduler) => {
      const { steps, initNoiseSigma } = schedule(name, {}, 12);
      const { latent, outputFromModel } = steps[0]!;
      return { n: latent.sample * initNoiseSigma, e: latent.modelOutputs[0] * outputFromModel };
    };
    const euler = first("euler");
    const ddim = first("ddim");
    const scale = ddim.n / euler.n;
    expect(ddim.e / euler.e / scale - 1).toBeCloseTo(0, 6);
    const rescaled = keptOf(golden, "run.euler.step0").data.map((x) => x * scale);
    const recorded = keptOf(golden, "run.ddim.step0").data;
    expect(relativeL2(rescaled, recorded)).toBeLessThanOrEqual(1e-5);
  });
});

describe("options", () => {
  test("options override the config's Karras sigmas and spacing", () => {
    const karras = { use_karras_sigmas: true, timestep_spacing: "trailing" };
    const plain = schedule("euler", {}, 12);
    const options = { stepCount: 12, useKarrasSigmas: false, timestepSpacing: "leading" } as const;
    expect(schedule("euler", karras, options)).toEqual(plain);
    expect(schedule("euler", karras, 12).sigmas).not.toEqual(plain.sigmas);
  });

  test("a config without a spacing has the sampler's own: linspace, for ddim leading", () => {
    const settings = { timestep_spacing: undefined };
    expect(schedule("euler", settings, 3).timesteps[0]).toBe(999);
    expect(schedule("euler_a", settings, 3).timesteps[0]).toBe(999);
    expect(schedule("ddim", settings, 3).timesteps[0]).toBe(667);
  });

  test("the ancestral sampler and ddim pass over Karras sigmas of the config", () => {
    for (const name of ["euler_a", "ddim"] as const) {
      expect(schedule(name, { use_karras_sigmas: true }, 12)).toEqual(schedule(name, {}, 12));
    }
  });

  test("of these only the ancestral sampler samples noise; its last step does not use it", () => {
    for (const name of ["euler", "euler_a", "ddim"] as const) {
      const { steps } = schedule(name, {}, 12);
      expect(steps.map((step) => step.samplesNoise)).toEqual(steps.map(() => name === "euler_a"));
      const used = steps.map((step) => step.latent.noise !== 0);
      expect(used).toEqual(steps.map((_, i) => name === "euler_a" && i < 11));
    }
  });

  test("a class has its sampler's name, and an unknown class has none", () => {
    expect(schedulerNameOfClass("EulerAncestralDiscreteScheduler")).toBe("euler_a");
    expect(schedulerNameOfClass("SASolverScheduler")).toBeNull();
  });

  test("a ddim config of diffusers' own class clips by default; other configs do not", () => {
    const other = {
      _class_name: "EulerDiscreteScheduler",
      clip_sample: null,
      set_alpha_to_one: null,
    };
    expect(schedule("ddim", other, 12)).toEqual(schedule("ddim", {}, 12));
    const own = { ...other, _class_name: "DDIMScheduler" };
    expect(() => schedule("ddim", own, 12)).toThrow(/clip_sample true/);
  });
});

describe("any schedule", () => {
  const name = fc.constantFrom(...schedulers);
  const spacing = fc.constantFrom("leading", "trailing", "linspace" as const);
  const hasSigmas = (name: Scheduler) => schedule(name, {}, 2).sigmas !== null;
  const fewSteps = ["lcm", "tcd"] as const;
  const stepCount = fc.integer({ min: 1, max: 999 });

  test("falls and is finite", () => {
    fc.assert(
      fc.property(
        name,
        spacing,
        stepCount,
        fc.boolean(),
        fc.constantFrom("diffusers", "kdiffusion", "a1111" as const),
        (name, timestepSpacing, count, karras, flavour) => {
          // A1111's own timesteps have no sigmas to choose; DDIM's and PLMS's are one fewer.
          const isOwn = flavour === "a1111" && samplerRows[name].sampler.isOfTimesteps;
          fc.pre(!isOwn || (name.startsWith("unipc") && !karras));
          const isFew = fewSteps.some((each) => each === name);
          const share = isFew ? 20 : name === "heunpp2" ? 3 : 2;
          const stepCount = Math.ceil(count / share);
          const useKarrasSigmas = (karras && hasSigmas(name)) || undefined;
          const options = { stepCount, timestepSpacing, useKarrasSigmas, flavour };
          const { steps, timesteps, sigmas, initNoiseSigma } = schedule(name, {}, options);
          expect(steps.length).toBeGreaterThanOrEqual(stepCount);
          expect(timesteps).toHaveLength(steps.length);
          expect(initNoiseSigma).toBeGreaterThan(0);
          // Each step of heunpp2 looks at the level after the next.
          if (name === "heunpp2") return;
          // Rounded ones stand beside the middles of steps; digits of these cancel in k-diffusion.
          const [slack, ratio] = flavour === "diffusers" ? [0.5, 1] : [1, 1 + 1e-3];
          for (let i = 1; i < steps.length; i++)
            expect(timesteps[i]!).toBeLessThanOrEqual(timesteps[i - 1]! + slack);
          for (let i = 1; sigmas && i <= steps.length; i++)
            expect(sigmas[i]!).toBeLessThanOrEqual(sigmas[i - 1]! * ratio);
          expect(timesteps.every((t) => t >= 0 && t <= 999)).toBe(true);
          expect(steps.every((step, i) => Math.fround(step.timestep) === timesteps[i])).toBe(true);
        },
      ),
      { numRuns: 150 },
    );
  });

  const pairs: [Partial<ScheduleOptions>, Partial<ScheduleOptions>][] = [
    [{ sigmas: "karras" }, { sigmas: "normal" }],
    [{ timestepRounding: "nearest" }, { timestepRounding: "none" }],
    [{ timestepSpacing: "leading" }, { timestepSpacing: "trailing" }],
    [{ eta: 0.5 }, { eta: 0.7 }],
    [{ sNoise: 0.5 }, { sNoise: 0.7 }],
  ];

  test.each(["diffusers", "kdiffusion", "a1111"] as const)(
    "an option changes the schedule, is refused or is warned of: %s",
    (flavour) => {
      for (const name of schedulers) {
        for (const [one, other] of pairs) {
          const first = unlessRefused(name, { stepCount: 7, flavour, ...one });
          const second = unlessRefused(name, { stepCount: 7, flavour, ...other });
          if (first === null || second === null) continue;
          // Whole timesteps are rounded already.
          const isRound = one.timestepRounding && first.timesteps.every(Number.isInteger);
          const isSame = isDeepStrictEqual(first, second);
          if (isSame && isRound) continue;
          const unused = unusedScheduleOptions(first, { flavour, ...one });
          const asked = `${name} ${JSON.stringify(one)}`;
          expect({ asked, isWarned: unused.length > 0 }).toEqual({ asked, isWarned: isSame });
        }
      }
    },
  );

  test("halves round to even", () => {
    expect([0.5, 1.5, 2.5, 2.4999, 2.5001].map(roundHalfEven)).toEqual([0, 2, 2, 2, 3]);
  });
});

function unlessRefused(name: Scheduler, options: ScheduleOptions): Schedule | null {
  try {
    return schedule(name, {}, options);
  } catch (error) {
    if (error instanceof BasedXLError) return null;
    throw error;
  }
}

function refusal(make: () => unknown, code: string): string {
  try {
    make();
  } catch (error) {
    expect(error).toBeInstanceOf(BasedXLError);
    expect((error as BasedXLError).code).toBe(code as BasedXLError["code"]);
    return (error as BasedXLError).message;
  }
  throw new Error("nothing was refused");
}

describe("refused", () => {
  for (const count of [0, -1, 1001, 2.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    test(`${count} steps`, () => {
      const message = refusal(() => schedule("euler", {}, count), "bad-option");
      expect(message).toBe(
        `The number of steps is ${count}, but it must be a whole number from 1 to 1000.`,
      );
    });
  }

  test("more steps than the model has timesteps", () => {
    const message = refusal(() => schedule("ddim", { num_train_timesteps: 40 }, 41), "bad-option");
    expect(message).toMatch(/a whole number from 1 to 40/);
  });

  test("Karras sigmas for ddim", () => {
    const options = { stepCount: 12, useKarrasSigmas: true };
    const message = refusal(() => schedule("ddim", {}, options), "bad-option");
    expect(message).toMatch(/ddim scheduler has no sigmas.*euler and dpmpp_2m can/);
  });

  test("a ddim run past the last timestep", () => {
    const message = refusal(() => schedule("ddim", {}, 1000), "bad-option");
    expect(message).toMatch(/1000 steps with steps_offset 1 leave the timesteps 0 to 999/);
  });

  test("clipping and thresholding", () => {
    const clip = refusal(() => schedule("ddim", { clip_sample: true }, 12), "bad-model");
    expect(clip).toMatch(/clip_sample true.*latents have no fixed range/);
    const threshold = refusal(() => schedule("ddim", { thresholding: true }, 12), "bad-model");
    expect(threshold).toMatch(/thresholding true/);
  });

  for (const settings of [
    { interpolation_type: "log_linear" },
    { timestep_type: "continuous", prediction_type: "v_prediction" },
    { timestep_type: "other" },
  ]) {
    const [key = ""] = Object.keys(settings);
    test(`${JSON.stringify(settings)}, which only euler reads`, () => {
      const message = refusal(() => schedule("euler", settings, 12), "bad-model");
      expect(message).toContain(`scheduler_config.json asks for ${key}`);
      for (const name of ["euler_a", "ddim"] as const) {
        const plain = { ...settings, [key]: undefined };
        expect(schedule(name, settings, 12)).toEqual(schedule(name, plain, 12));
      }
    });
  }

  test("settings without effect at their value, and those that a flag replaces", () => {
    const plain = schedule("euler", {}, 12);
    expect(schedule("euler", { timestep_type: "continuous" }, 12)).toEqual(plain);
    expect(schedule("euler", { sigma_min: 0.1, lambda_min_clipped: -5.1 }, 12)).toEqual(plain);
    const karras = { stepCount: 12, useKarrasSigmas: true };
    for (const settings of [{ use_beta_sigmas: true }, { use_exponential_sigmas: true }]) {
      expect(schedule("euler", settings, karras)).toEqual(schedule("euler", {}, karras));
    }
  });

  test("a first step out of pure noise with the epsilon prediction", () => {
    const settings = { rescale_betas_zero_snr: true, timestep_spacing: "trailing" };
    const message = refusal(() => schedule("ddim", settings, 12), "bad-model");
    expect(message).toMatch(/divides by zero at step 1 \(timestep 999\).*"v_prediction"/);
  });

  test("equal noise levels of a model that ends in pure noise, which are not its fault", () => {
    const settings = { rescale_betas_zero_snr: true, prediction_type: "v_prediction" };
    const options = { stepCount: 3, sigmas: [5, 5, 5, 0] };
    const message = refusal(() => schedule("dpmpp_2m", settings, options), "bad-option");
    expect(message).toMatch(/have the same noise level at step 2/);
  });
});

describe("the sampler of a model's class", () => {
  const choose = (settings: Record<string, unknown>) => samplerOfModel(configWith(settings));

  test("one that this version has, or euler in its place", () => {
    for (const [_class_name, name] of [
      ["DDIMScheduler", "ddim"],
      ["DPMSolverMultistepScheduler", "dpmpp_2m"],
      ["UniPCMultistepScheduler", "unipc"],
      ["LCMScheduler", "lcm"],
      ["PNDMScheduler", "pndm"],
    ]) {
      const settings = { _class_name, lambda_min_clipped: -5.1, flow_shift: 2 };
      expect(choose(settings)).toEqual({ name: name as Scheduler, replaced: false });
    }
    for (const _class_name of ["DPMSolverSDEScheduler", "SASolverScheduler"]) {
      expect(choose({ _class_name })).toEqual({ name: "euler", replaced: true });
    }
  });

  for (const [settings, what] of [
    [{ _class_name: "MyScheduler" }, "the scheduler MyScheduler"],
    [{ _class_name: "DDIMInverseScheduler" }, "the scheduler DDIMInverseScheduler"],
    [{ _class_name: "RePaintScheduler" }, "the scheduler RePaintScheduler"],
    [{ _class_name: "SASolverScheduler", thresholding: true }, "thresholding"],
  ] as const) {
    test(`${JSON.stringify(settings)} is refused, unless a scheduler is named`, () => {
      const message = refusal(() => choose(settings), "bad-model");
      expect(message).toContain(`asks for ${what}, which is not supported`);
      expect(message).toContain("name a scheduler of this version: euler, euler_a, ");
      expect(() => schedule("euler", settings, 12)).not.toThrow();
    });
  }
});
