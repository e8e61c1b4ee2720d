/**
 * Every sampler with every spacing of sigmas and the settings of its class against diffusers
 * (tests/fixtures/samplers.json, made by tests/reference/make_samplers.py): timesteps, sigmas, and
 * the last latent of a run with a known model output.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { BasedXLError } from "../../src/errors.ts";
import { parseSchedulerConfig } from "../../src/models/config.ts";
import { alphasCumprod } from "../../src/samplers/betas.ts";
import { levelOfAlpha } from "../../src/samplers/coefficients.ts";
import {
  makeSchedule,
  type Schedule,
  type ScheduleOptions,
  samplerOfModel,
  unusedScheduleOptions,
} from "../../src/schedule.ts";
import {
  automaticSigmas,
  describeSamplers,
  type Scheduler,
  samplerNamed,
  schedulers,
  sigmasNamed,
} from "../../src/settings/samplers.ts";
import { relativeL2 } from "../support/compare.ts";
import { runSteps } from "../support/run-steps.ts";

interface Case {
  name: Scheduler;
  count: number;
  settings: Record<string, unknown>;
  eta?: number;
  /** Arguments of set_timesteps. */
  lists?: Pick<ScheduleOptions, "timesteps" | "sigmas">;
  timesteps: number[];
  sigmas?: number[];
  latents: Record<string, number[]>;
}

const fixtures = join(import.meta.dir, "../fixtures");
const readJson = (path: string) => JSON.parse(readFileSync(path, "utf8"));
// Another list of the same kind may be compared by hand.
const cases: Case[] = readJson(process.env.SAMPLERS ?? join(fixtures, "samplers.json"));
const sdxl = readJson(join(fixtures, "golden/model/scheduler/scheduler_config.json"));

function scheduleOf({ settings, count, eta, lists }: Case, prediction: string): Schedule {
  const json = {
    ...{ ...sdxl, clip_sample: false, set_alpha_to_one: false, ...settings },
    prediction_type: prediction,
  };
  const config = parseSchedulerConfig("scheduler_config.json", json);
  const { name, replaced } = samplerOfModel(config);
  expect(replaced).toBe(false);
  return makeSchedule(name, config, { stepCount: count, eta, ...lists });
}

/** Without the levels in the middle of steps, which are beside the sigmas in the reference. */
const atSteps = (sigmas: Float32Array) =>
  sigmas.map((sigma, i) => (i % 2 === 1 && i + 1 < sigmas.length ? sigmas[i + 1]! : sigma));

/** The largest relative error, or that relative to `least` where this is more. */
const largestError = (ours: Float32Array, theirs: readonly number[], least = 0) =>
  Math.max(
    ...theirs.map((value, i) => {
      const difference = Math.abs(ours[i]! - value);
      return difference === 0 ? 0 : difference / Math.max(Math.abs(value), least);
    }),
  );

const titleOf = ({ name, settings, lists = {} }: Case) =>
  [
    name,
    ...Object.keys(lists).map((key) => `a list of ${key}`),
    ...Object.entries(settings)
      .slice(1)
      .map(([k, v]) => `${k}=${v}`),
  ].join(" ");

describe("equal to diffusers", () => {
  for (const [title, group] of Map.groupBy(cases, titleOf)) {
    test(title, () => {
      for (const entry of group) {
        for (const [prediction, latent] of Object.entries(entry.latents)) {
          const what = `${entry.count} steps, ${prediction}`;
          const ours = scheduleOf(entry, prediction);
          expect(ours.name).toBe(entry.name);
          expect(ours.timesteps, what).toHaveLength(entry.timesteps.length);
          // Middles of steps near timestep 0 are what cancels in the reference's f32.
          const least = entry.name.startsWith("dpm2") ? 1000 : 0;
          const error = largestError(ours.timesteps, entry.timesteps, least);
          expect(error, what).toBeLessThanOrEqual(1e-6);
          expect(ours.sigmas === null, what).toBe(entry.sigmas === undefined);
          if (ours.sigmas && entry.sigmas) {
            const own = entry.name.startsWith("dpm2") ? atSteps(ours.sigmas) : ours.sigmas;
            const theirs = entry.sigmas.slice(0, own.length);
            expect(largestError(own, theirs), what).toBeLessThanOrEqual(1e-6);
          }
          const latentError = relativeL2(runSteps(ours).at(-1)!, latent);
          expect(latentError, what).toBeLessThanOrEqual(1e-4);
        }
      }
    });
  }
});

describe("names", () => {
  test("of diffusers, A1111 and ComfyUI lead to the sampler and its sigmas", () => {
    for (const [text, name, sigmas] of [
      ["dpmpp_2m", "dpmpp_2m"],
      ["DPM++ 2M", "dpmpp_2m"],
      ["DPM++ 2M Karras", "dpmpp_2m", "karras"],
      ["DPM++ 2M SDE Exponential", "dpmpp_2m_sde", "exponential"],
      ["DPMSolverMultistepScheduler", "dpmpp_2m"],
      ["dpm_2_ancestral", "dpm2_a"],
      ["DPM2 a Karras", "dpm2_a", "karras"],
      ["euler a", "euler_a"],
      ["Euler A Beta", "euler_a", "beta"],
      ["UniPC", "unipc"],
      ["PLMS", "pndm"],
      ["HeunDiscrete", "heun"],
      ["DPM++ SDE Karras", "dpmpp_sde", "karras"],
      ["Euler SGM Uniform", "euler", "sgm_uniform"],
      ["DPM++ 3M SDE Exponential", "dpmpp_3m_sde", "exponential"],
      ["DPM++ 2M SDE Heun", "dpmpp_2m_sde_heun"],
      ["DPM++ 2M SDE Heun Karras", "dpmpp_2m_sde_heun", "karras"],
      ["DPM++ 2S a Karras", "dpmpp_2s_a", "karras"],
      ["Euler a Simple", "euler_a", "simple"],
      ["DPM++ 2M Align Your Steps", "dpmpp_2m", "ays"],
      ["DPM++ 2M SDE SGMUniform", "dpmpp_2m_sde", "sgm_uniform"],
      ["Heun KL Optimal", "heun", "kl_optimal"],
      ["Euler Uniform", "euler", "normal"],
      ["Euler DDIM", "euler", "ddim_uniform"],
      ["dpmpp_2s_ancestral", "dpmpp_2s_a"],
      ["uni_pc", "unipc"],
      ["uni_pc_bh2", "unipc_bh2"],
      ["res_multistep_ancestral", "res_multistep_a"],
      ["euler_ancestral_cfg_pp", "euler_a_cfg_pp"],
    ] as const) {
      expect(samplerNamed(text)).toEqual(sigmas ? { name, sigmas } : { name });
    }
    for (const name of schedulers) expect(samplerNamed(name)).toEqual({ name });
    const gpu = { name: "dpmpp_sde", noiseSampler: "brownian_gpu" } as const;
    expect(samplerNamed("dpmpp_sde_gpu")).toEqual(gpu);
    expect(samplerNamed("dpmpp_sde_gpu karras")).toEqual({ ...gpu, sigmas: "karras" });
    for (const text of ["", "karras", "DPM++ 4M", "Karras Euler", "eular"]) {
      expect(samplerNamed(text)).toBeNull();
    }
  });

  test("of schedules, as A1111 and ComfyUI write them beside the sampler", () => {
    for (const [text, sigmas] of [
      ["Karras", "karras"],
      ["SGM Uniform", "sgm_uniform"],
      ["Align Your Steps", "ays"],
      ["KL Optimal", "kl_optimal"],
      ["DDIM", "ddim_uniform"],
      ["ddim_uniform", "ddim_uniform"],
      ["Normal", "normal"],
      ["Uniform", "normal"],
      ["Automatic", null],
      ["Polyexponential", null],
    ] as const) {
      expect(sigmasNamed(text)).toBe(sigmas);
    }
    expect(automaticSigmas("dpmpp_2m")).toBe("karras");
    expect(automaticSigmas("dpmpp_3m_sde")).toBe("exponential");
    expect(automaticSigmas("euler_a")).toBe("normal");
  });

  test("are listed, one sampler per line", () => {
    const lines = describeSamplers().split("\n");
    expect(lines.map((line) => line.split(" ")[0])).toEqual([...schedulers]);
  });
});

describe("pndm with Runge-Kutta steps", () => {
  const settings = { _class_name: "PNDMScheduler", skip_prk_steps: false, steps_offset: 0 };
  const config = parseSchedulerConfig("scheduler_config.json", { ...sdxl, ...settings });

  test.each([
    [1, 1],
    [2, 5],
    [3, 9],
    [4, 13],
    [9, 18],
  ])("%i steps are %i evaluations, exact where the model finds the same noise", (stepCount, n) => {
    const schedule = makeSchedule("pndm", config, { stepCount });
    expect(schedule.timesteps).toHaveLength(n);
    const [level, end] = [schedule.timesteps[0]!, 0].map((timestep) =>
      levelOfAlpha(alphasCumprod(config)[timestep]!),
    );
    const noise = 0.7;
    const latents = runSteps({ ...schedule, initNoiseSigma: 0 }, () => noise);
    const data = (0 - level!.sigma * noise) / level!.alpha;
    const expected = end!.alpha * data + end!.sigma * noise;
    for (const value of latents.at(-1)!) expect(value).toBeCloseTo(expected, 9);
  });

  test("only of a config of its class, and not A1111's", () => {
    const count = (changes: object, flavour: "diffusers" | "a1111" = "diffusers") =>
      makeSchedule("pndm", { ...config, ...changes }, { stepCount: 6, flavour }).steps.length;
    expect(count({})).toBe(15);
    expect(count({ className: "EulerDiscreteScheduler" })).toBe(7);
    expect(count({}, "a1111")).toBeLessThanOrEqual(7);
  });
});

describe("fresh noise", () => {
  const config = parseSchedulerConfig("scheduler_config.json", { ...sdxl, clip_sample: false });
  const make = (name: Scheduler, options: Partial<ScheduleOptions> = {}) =>
    makeSchedule(name, config, { stepCount: 6, ...options });
  const noises = ({ steps }: Schedule) =>
    steps.flatMap(({ latent, auxiliary }) => [latent.noise, auxiliary?.noise ?? 0]);

  test("none at eta 0: the ancestral samplers are the plain ones", () => {
    for (const [noisy, plain] of [
      ["euler_a", "euler"],
      ["dpm2_a", "dpm2"],
      ["res_multistep_a", "res_multistep"],
      ["euler_a_cfg_pp", "euler_cfg_pp"],
      ["dpmpp_2m_sde", "dpmpp_2m"],
    ] as const) {
      for (const flavour of ["diffusers", "kdiffusion", "a1111"] as const) {
        const [ours, theirs] = [make(noisy, { eta: 0, flavour }), make(plain, { flavour })];
        expect(noises(ours).every((noise) => noise === 0)).toBe(true);
        const last = runSteps(ours).at(-1)!;
        expect(relativeL2(last, runSteps(theirs).at(-1)!)).toBeLessThanOrEqual(1e-12);
      }
    }
  });

  test("as much as --s-noise says", () => {
    for (const name of schedulers) {
      const [once, twice] = [noises(make(name)), noises(make(name, { sNoise: 2 }))];
      expect(twice).toEqual(once.map((noise) => 2 * noise));
    }
  });

  test("options that change nothing are named", () => {
    const unused = (name: Scheduler, options: Partial<ScheduleOptions>) =>
      unusedScheduleOptions(make(name, options), options);
    expect(unused("euler", { eta: 0.5, sNoise: 2, timestepRounding: "none" })).toEqual([
      "eta",
      "sNoise",
    ]);
    expect(unused("euler_a", { eta: 0.5, sNoise: 2 })).toEqual([]);
    expect(unused("euler_a", { eta: 0, sNoise: 2, timestepSpacing: "trailing" })).toEqual([]);
    expect(unused("lcm", { timestepRounding: "nearest" })).toEqual(["timestepRounding"]);
    const comfy = { flavour: "kdiffusion", timestepSpacing: "trailing", eta: 0.5 } as const;
    expect(unused("ddim", comfy)).toEqual(["timestepSpacing", "eta"]);
  });

  test("--timestep-rounding and --first-sigma go before what the sampler does elsewhere", () => {
    const sigmas = [14, 3, 0.5, 0];
    const at = (options: Partial<ScheduleOptions>) =>
      make("euler", { stepCount: 3, sigmas, ...options });
    const fractions = at({}).timesteps;
    const whole = at({ timestepRounding: "nearest" }).timesteps;
    expect([...fractions].every(Number.isInteger)).toBe(false);
    expect([...whole].every(Number.isInteger)).toBe(true);
    for (const [i, timestep] of whole.entries()) {
      expect(Math.abs(timestep - fractions[i]!)).toBeLessThanOrEqual(0.51);
    }
    expect(make("dpmpp_2m", { timestepRounding: "none" }).steps[1]!.timestep).toBeGreaterThan(0);
    expect(at({ firstSigma: "sigma" }).initNoiseSigma).toBe(14);
    expect(at({ firstSigma: "sqrt" }).initNoiseSigma).toBe(Math.hypot(14, 1));
    expect(at({ flavour: "kdiffusion" }).initNoiseSigma).toBe(14);
    const comfy = make("euler", { flavour: "kdiffusion" });
    expect(comfy.initNoiseSigma).toBeCloseTo(Math.hypot(comfy.sigmas![0]!, 1), 5);
    const solver = make("dpmpp_2m", { flavour: "a1111" });
    const first = solver.sigmas![0]!;
    expect(solver.initNoiseSigma).toBeCloseTo(first / Math.hypot(first, 1), 6);
  });
});

describe("refused", () => {
  const sentence = (name: Scheduler, settings: object, options: Partial<ScheduleOptions> = {}) => {
    const json = { ...sdxl, clip_sample: false, ...settings };
    const config = parseSchedulerConfig("scheduler_config.json", json);
    try {
      makeSchedule(name, config, { stepCount: 8, ...options });
    } catch (error) {
      if (error instanceof BasedXLError) return error.message;
      throw error;
    }
    return "";
  };
  const multistep = { _class_name: "DPMSolverMultistepScheduler" };

  test.each([
    ["dpmpp_2m", { algorithm_type: "x" }, /algorithm_type "x".*dpmsolver\+\+.* is; or name/],
    ["dpmpp_2m", { solver_type: "x" }, /solver_type "x".*midpoint and heun is/],
    ["dpmpp_2m", { solver_order: 4 }, /solver_order 4.*orders 1 to 3 is/],
    ["dpmpp_2m", { algorithm_type: "dpmsolver" }, /"dpmsolver" with final_sigmas_type "zero"/],
    ["dpmpp_2m", { thresholding: true }, /thresholding true, which dpmpp_2m does not/],
    ["unipc", { solver_type: "x" }, /solver_type "x".*bh1 or bh2 is/],
    ["unipc", { solver_p: {} }, /another predictor \(solver_p\)/],
    ["deis", { algorithm_type: "x" }, /algorithm_type "x".*deis with logrho is/],
    ["deis", { solver_type: "x" }, /solver_type "x".*deis with logrho is/],
    ["heun", { clip_sample: true }, /clip_sample true, which heun does not/],
    ["lcm", { original_inference_steps: 4 }, /lcm takes at most 4 steps/],
    [
      "tcd",
      { original_inference_steps: 4000 },
      /original_inference_steps 4000, more than its 1000/,
    ],
    ["ddpm", { variance_type: "fixed_large_log" }, /variance_type "fixed_large_log"/],
    ["pndm", { prediction_type: "sample" }, /prediction type is "sample", which pndm does not/],
    [
      "dpmpp_3m",
      {
        ...multistep,
        solver_order: 3,
        algorithm_type: "sde-dpmsolver",
        ...{ final_sigmas_type: "sigma_min" },
      },
      /"sde-dpmsolver" in dpmpp_3m.*"sde-dpmsolver\+\+" is/,
    ],
  ] as const)("%s with %j", (name, settings, expected) => {
    expect(sentence(name, settings)).toMatch(expected);
    expect(sentence(name, settings)).toMatch(/^[^.]*(\.json[^.]*)?\.$|\. Set it/);
  });

  test("sigmas that a sampler does not have, and two that contradict each other", () => {
    expect(sentence("heun", {}, { sigmas: "lu" })).toBe(
      "The heun scheduler has sigmas of its own, so it cannot use sigmas lu; " +
        "dpmpp_2m and dpmpp_3m can.",
    );
    expect(sentence("lcm", {}, { sigmas: "beta" })).toMatch(/lcm scheduler has no sigmas/);
    expect(sentence("lcm", {}, { sigmas: "normal" })).toBe("");
    expect(sentence("lcm", { use_karras_sigmas: true })).toBe("");
    const both = { sigmas: "beta", useKarrasSigmas: true } as const;
    expect(sentence("euler", {}, both)).toMatch(/beta and Karras sigmas contradict/);
  });

  test("steps that share a noise level, or more evaluations than there is room for", () => {
    expect(sentence("dpmpp_2m", {}, { stepCount: 1000 })).toMatch(/have the same noise level/);
    expect(sentence("heun", {}, { stepCount: 501 })).toMatch(/501 steps of heun are 1001 eval/);
  });
});
