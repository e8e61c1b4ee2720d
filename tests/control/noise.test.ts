/**
 * Settings of noise in the library's terms: what each tool's row of --compat comes to, places in a
 * batch, Brownian paths, and refusals.
 */
import { expect, test } from "bun:test";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { noiseRequestOf } from "../../src/pipeline/noise.ts";
import { type GenerateRequest, planRequest } from "../../src/pipeline/request.ts";
import { asFlag } from "../../src/settings/values.ts";

const model = await openModelFolder(goldenModel);

function plan(request: Partial<GenerateRequest>) {
  const size = { width: 64, height: 64, stepCount: 4, scheduler: "euler_a" } as const;
  return planRequest({ prompt: "a", ...size, ...request }, model, 1, asFlag);
}

function noiseOf(request: Partial<GenerateRequest>) {
  const { settings, schedule, batches } = plan({ seeds: [7n, 8n, 9n], batchSize: 2, ...request });
  return batches.map(({ images }) => {
    const { steps, ...noise } = noiseRequestOf(settings, schedule, images);
    return { ...noise, seeds: images.map(({ seed }) => seed), levels: steps.map(levelsOf) };
  });
}

function levelsOf({ noiseFrom, noiseTo }: { noiseFrom?: number; noiseTo?: number }) {
  return [noiseFrom, noiseTo];
}

test("each image has its seed where tools give it one, and steps go on", () => {
  for (const compat of ["diffusers", "a1111"] as const) {
    const [first, second] = noiseOf({ compat });
    expect(first).toMatchObject({ seeds: [7n, 8n], noiseBatch: 1, noisePlaces: [0, 0] });
    expect(second).toMatchObject({ seeds: [9n], noisePlaces: [0], noiseSource: "generator" });
  }
});

test("ComfyUI's batch has one seed, and steps a new generator", () => {
  const [first, second] = noiseOf({ compat: "comfyui" });
  const gpu = { noiseSource: "new_generator", noiseRng: "cuda", noiseSeedDelta: 0n } as const;
  expect(first).toMatchObject({ seeds: [7n, 7n], noiseBatch: 3, noisePlaces: [0, 1], ...gpu });
  expect(second).toMatchObject({ seeds: [7n], noiseBatch: 3, noisePlaces: [2], ...gpu });
  const [cpu] = noiseOf({ compat: "comfyui", stepRng: "cpu" });
  expect(cpu).toMatchObject({ ...gpu, noiseRng: "cpu", noiseSeedDelta: 1n });
  const [part] = noiseOf({ noiseOrder: "batch", noiseIndex: 3, noiseBatch: 9, seeds: [1n] });
  expect(part).toMatchObject({ seeds: [1n], noiseBatch: 9, noisePlaces: [3] });
});

test("variations count up in the place of the seed; ENSD is a new generator", () => {
  const [first, second] = noiseOf({ variationSeed: 5n, variationStrength: 0.1 });
  expect(first).toMatchObject({ seeds: [7n, 7n], variationSeeds: [5n, 6n] });
  expect(second).toMatchObject({ seeds: [7n], variationSeeds: [7n], variationStrength: 0.1 });
  const [ensd] = noiseOf({ etaNoiseSeedDelta: 31337, rng: "cuda" });
  const renewed = { noiseSource: "new_generator", noiseRng: "cuda", noiseSeedDelta: 31337n };
  expect(ensd).toMatchObject(renewed as object);
  expect(() => plan({ variationStrength: 0.1 })).toThrow(
    "--variation-strength needs --variation-seed.",
  );
  const batch = { noiseOrder: "batch", variationSeed: 5n, variationStrength: 0.1 } as const;
  expect(() => plan({ ...batch, seeds: [1n, 2n] })).toThrow(
    "--variation-strength is A1111's, which has no --noise-order batch of several.",
  );
});

test("places that a batch does not have are refused", () => {
  const batch = { noiseOrder: "batch", noiseBatch: 4, noiseIndex: 2, seeds: [1n, 2n, 3n] } as const;
  expect(() => plan(batch)).toThrow(
    "--noise-batch is 4, but the last image's place in it is 4: it must be above.",
  );
  expect(plan({ ...batch, noiseBatch: undefined }).settings.noiseBatch).toBe(5);
  expect(plan({ ...batch, noiseOrder: "image" }).settings.noiseBatch).toBeUndefined();
});

test("a Brownian path goes over the sampler's levels, with numbers of --rng or a GPU", () => {
  const sigmas = [14, 5, 1, 0];
  const path = { scheduler: "dpmpp_2m_sde", sigmas, noiseSampler: "brownian" } as const;
  const [noise] = noiseOf({ ...path, stepCount: undefined });
  expect(noise).toMatchObject({ noiseSource: "brownian", noiseRng: "cpu", brownianMin: 1 });
  expect(noise).toMatchObject({
    brownianMax: 14,
    levels: [
      [14, 5],
      [5, 1],
      [1, 0],
    ],
  });
  const of = (more: Partial<GenerateRequest>) => {
    return noiseOf({ ...path, stepCount: undefined, ...more })[0]?.noiseRng;
  };
  expect(of({ rng: "cuda" })).toBe("cuda");
  expect(of({ noiseSampler: "brownian_gpu" })).toBe("cuda");
  const without = noiseOf({ ...path, stepCount: undefined, noiseSampler: "generator" });
  expect(without[0]?.noiseSource).toBe("generator");
});

test("a path without levels is refused, and not read where nothing is sampled", () => {
  expect(() => plan({ seeds: [1n], scheduler: "ddpm", noiseSampler: "brownian" })).toThrow(
    "--noise-sampler brownian needs a sampler with noise levels, which ddpm is not.",
  );
  const [noise] = noiseOf({ scheduler: "euler", noiseSampler: "brownian" });
  expect(noise?.noiseSource).toBe("generator");
});

test("half steps of dpmpp_sde end where torch's logarithms in f32 have them", () => {
  const sigmas = [14.614643, 9.7233114, 5.3118, 2.6, 0.77, 0.0291675, 0];
  // exp(-(l + (n - l) / 2)) of l, n = -log(sigmas); and exp(log(sigmas)).
  const middles = [11.920686721801758, 7.186674118041992, 3.7162718772888184, 1.414920449256897];
  const back = [14.614643096923828, 9.723312377929688, 5.3117995262146, 2.5999999046325684];
  // A path knows levels to so many digits; torch's logarithm is off in the last place of f32.
  const shown = (levels: (number | undefined)[]) => levels.map((each) => each?.toFixed(6));
  for (const compat of ["comfyui", "a1111"] as const) {
    const [noise] = noiseOf({ compat, scheduler: "dpmpp_sde", sigmas, stepCount: undefined });
    expect(noise?.noiseSource).toBe("brownian");
    const ends = compat === "a1111" ? back : sigmas;
    for (const [i, middle] of middles.entries()) {
      const [half = [], whole = []] = noise!.levels.slice(2 * i);
      expect(shown(half)).toEqual(shown([ends[i], middle]));
      expect(shown(whole).slice(0, 1)).toEqual(shown([ends[i]]));
    }
  }
});

test("ComfyUI's samplers ending in _gpu take a GPU's numbers", () => {
  const of = (more: Partial<GenerateRequest>) => noiseOf({ compat: "comfyui", ...more })[0];
  expect(of({ scheduler: "dpmpp_2m_sde" as never })).toMatchObject({ noiseRng: "cpu" });
  const scheduler = "dpmpp_2m_sde_gpu" as never;
  expect(of({ scheduler })).toMatchObject({ noiseSource: "brownian", noiseRng: "cuda" });
  expect(of({ scheduler, noiseSampler: "generator" })!.noiseSource).toBe("new_generator");
  expect(of({ scheduler, compat: "diffusers" })!.noiseSource).toBe("generator");
});

test("settings of noise that do nothing are warned of", () => {
  const of = (request: Partial<GenerateRequest>) => plan({ seeds: [1n], ...request }).warnings;
  const euler = { scheduler: "euler" } as const;
  const addsNone = "is not used by the scheduler euler, whose steps add no noise.";
  expect(of({ noiseBatch: 4, noiseIndex: 2 })).toEqual([
    "--noise-batch is not used: it needs --noise-order batch.",
    "--noise-index is not used: it needs --noise-order batch.",
  ]);
  expect(of({ variationSeed: 3n })).toEqual([
    "--variation-seed is not used: it needs --variation-strength above 0.",
  ]);
  expect(of({ ...euler, noiseSampler: "brownian", stepRng: "cpu" })).toEqual([
    `--noise-sampler ${addsNone}`,
    `--step-rng ${addsNone}`,
  ]);
  expect(of({ etaNoiseSeedDelta: 31337, stepRng: "cuda" })).toEqual([
    "--eta-noise-seed-delta (--ensd) is not used: it needs --step-rng same.",
  ]);
  expect(of({ emphasis: "no_norm" })).toEqual([
    "--emphasis is not used: it needs --prompt-syntax a1111.",
  ]);
  // An image records what its tool decides: that it does nothing is nobody's mistake.
  const recorded = { compat: "comfyui", stepRng: "cuda", noiseBatch: 1, noiseIndex: 0 } as const;
  expect(of({ ...euler, ...recorded })).toEqual([]);
  expect(of({ compat: "a1111", emphasis: "ignore", etaNoiseSeedDelta: 1 })).toEqual([]);
});
