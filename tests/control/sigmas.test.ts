/**
 * ComfyUI's sigma schedules against its own functions (tests/fixtures/sigmas.json, made by
 * tests/reference/make_sigmas.py), properties of every schedule, and lists of timesteps and sigmas.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { BasedXLError } from "../../src/errors.ts";
import { parseSchedulerConfig } from "../../src/models/config.ts";
import { makeSchedule, type ScheduleOptions } from "../../src/schedule.ts";
import { comfyKinds, type Scheduler, sigmaKinds } from "../../src/settings/names.ts";

const fixtures = join(import.meta.dir, "../fixtures");
const readJson = (path: string) => JSON.parse(readFileSync(join(fixtures, path), "utf8"));
const cases: Record<string, { sigmas: number[]; timesteps: number[] }> = readJson("sigmas.json");
const sdxl = readJson("golden/model/scheduler/scheduler_config.json");
const configOf = (settings: object = {}) =>
  parseSchedulerConfig("scheduler_config.json", { ...sdxl, clip_sample: false, ...settings });
const make = (name: Scheduler, options: ScheduleOptions, settings = {}) =>
  makeSchedule(name, configOf(settings), options);

function sentence(name: Scheduler, options: ScheduleOptions): string {
  try {
    make(name, options);
  } catch (error) {
    if (error instanceof BasedXLError && error.code === "bad-option") return error.message;
    throw error;
  }
  return "";
}

const oneEvaluation = ["euler", "euler_a", "lms", "dpmpp_2m", "dpmpp_2m_sde", "unipc"] as const;
const twoEvaluations = ["heun", "dpm2", "dpm2_a"] as const;

describe("ComfyUI's schedules", () => {
  test.each(Object.entries(cases))("%s", (title, theirs) => {
    const [kind, count, zeroSnr] = title.split(" ");
    const sigmas = comfyKinds.find((name) => name === kind)!;
    const settings = zeroSnr === undefined ? {} : { rescale_betas_zero_snr: true };
    for (const name of ["euler", "euler_a", "dpmpp_2m"] as const) {
      const ours = make(name, { stepCount: Number(count), sigmas }, settings);
      expect([...ours.timesteps]).toEqual(theirs.timesteps);
      expect(ours.sigmas).toHaveLength(theirs.sigmas.length);
      for (const [i, sigma] of theirs.sigmas.entries()) {
        expect(Math.abs(ours.sigmas![i]! - sigma)).toBeLessThanOrEqual(1e-6 * sigma);
      }
    }
  });

  test("each is recorded", () => {
    const recorded = new Set(Object.keys(cases).map((title) => title.split(" ")[0]));
    expect([...recorded].sort()).toEqual([...comfyKinds].sort());
  });
});

test("every schedule falls to its end in as many steps as it was asked for", () => {
  const names = fc.constantFrom<Scheduler>(...oneEvaluation, ...twoEvaluations);
  const kinds = fc.constantFrom(...sigmaKinds.filter((kind) => kind !== "lu"));
  fc.assert(
    fc.property(names, kinds, fc.integer({ min: 1, max: 150 }), (name, kind, stepCount) => {
      const { sigmas, timesteps, steps } = make(name, { stepCount, sigmas: kind });
      const levels = [...sigmas!].filter((sigma, i) => i === 0 || sigma !== sigmas![i - 1]);
      expect(levels.every((sigma, i) => i === 0 || sigma < levels[i - 1]!)).toBe(true);
      expect(levels.at(-1)).toBe(0);
      expect(timesteps).toHaveLength(steps.length);
      const perStep = (twoEvaluations as readonly string[]).includes(name) ? 2 : 1;
      const count = (steps.length + perStep - 1) / perStep;
      if (kind === "ddim_uniform") {
        expect(count).toBe(Math.ceil(999 / Math.floor(1000 / stepCount)));
      } else if (kind === "beta_timesteps") {
        expect(count).toBeLessThanOrEqual(stepCount);
        expect(count).toBeGreaterThan(stepCount * 0.9);
      } else {
        expect(count).toBe(stepCount);
      }
    }),
    { numRuns: 300 },
  );
});

describe("lists", () => {
  const dmd2 = [999, 749, 499, 249];

  test.each(["lcm", "tcd", "ddim", "euler", "euler_a", "dpmpp_2m", "unipc"] as const)(
    "of timesteps: %s visits these",
    (name) => {
      const { timesteps, steps } = make(name, { stepCount: 4, timesteps: dmd2 });
      expect([...timesteps]).toEqual(dmd2);
      expect(steps.map(({ timestep }) => timestep)).toEqual(dmd2);
    },
  );

  test("of timesteps: the same as the spacing that visits them", () => {
    for (const name of ["ddim", "euler", "heun"] as const) {
      const spaced = make(name, { stepCount: 8, timestepSpacing: "trailing" });
      const visited = [...new Set(spaced.timesteps)];
      const options = { stepCount: 8, timesteps: visited, timestepSpacing: "trailing" } as const;
      expect(make(name, options)).toEqual(spaced);
    }
    const own = make("lcm", { stepCount: 4 });
    expect(make("lcm", { stepCount: 4, timesteps: [...own.timesteps] })).toEqual(own);
  });

  test("of sigmas: the levels, the last one too, and the timesteps between the model's", () => {
    const sigmas = [14, 3, 0.5, 0.25];
    const { timesteps, sigmas: levels, steps } = make("euler", { stepCount: 3, sigmas });
    expect([...levels!]).toEqual(sigmas);
    expect(steps).toHaveLength(3);
    expect([...timesteps].map((timestep) => Math.round(timestep))).toEqual([992, 673, 169]);
    const spaced = make("dpmpp_2m", { stepCount: 6, sigmas: "ays" });
    const same = make("dpmpp_2m", { stepCount: 6, sigmas: [...spaced.sigmas!] });
    expect(same).toEqual(spaced);
    const heun = make("heun", { stepCount: 3, sigmas });
    expect([...new Set(heun.sigmas)]).toEqual(sigmas);
  });

  test("are refused where they do not fit", () => {
    const timesteps = dmd2;
    expect(sentence("pndm", { stepCount: 4, timesteps })).toMatch(
      /pndm scheduler has timesteps of/,
    );
    expect(sentence("lcm", { stepCount: 4, sigmas: [3, 2, 1, 0.5, 0] })).toMatch(
      /^The lcm scheduler has no sigmas, so it cannot use a list of sigmas; euler and/,
    );
    expect(sentence("lcm", { stepCount: 4, sigmas: "sgm_uniform" })).toMatch(/has no sigmas/);
    expect(sentence("euler", { stepCount: 5, timesteps })).toMatch(/4 timesteps where.* need 5/);
    expect(sentence("euler", { stepCount: 5, sigmas: [3, 0] })).toMatch(/2 noise levels.* need 6/);
    expect(sentence("euler", { stepCount: 2, timesteps: [1000, 1] })).toMatch(/1000 is outside/);
    expect(sentence("euler", { stepCount: 4, timesteps, sigmas: "karras" })).toMatch(/keep one/);
    const both = { stepCount: 1, sigmas: [3, 0], useKarrasSigmas: true };
    expect(sentence("euler", both)).toMatch(/list of sigmas and Karras sigmas contradict/);
  });
});
