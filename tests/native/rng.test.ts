/**
 * `--rng cuda` on the CPU: the first latent and the steps' noise are the numbers that torch prints
 * on CUDA devices, each image's from its own generator, for any number of ranks. Then the orders of
 * ComfyUI: one generator for a batch, and a new one for the steps.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { maxAbs } from "../support/compare.ts";
import { drawNoise } from "../support/noise.ts";

setDefaultTimeout(60_000);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const work = { model, width: 64, height: 64, guidanceScale: 1, rng: "cuda" } as const;
/** Half a unit of the fourth decimal, which is what torch prints. */
const printed = 5.1e-5;

/** What `torch.randn(4, device="cuda")` prints, called again and again after one seed. */
const seed42 = [
  [0.194, 2.1614, -0.1721, 0.8491],
  [0.1391, -0.1082, -0.7174, 0.7566],
  [-0.5187, 1.2268, 0.6255, -0.9117],
  [-0.6974, -1.8688, -0.8832, -1.6627],
];
const seed0 = [-0.9247, -0.4253, -2.6438, 0.1452, -0.1209, -0.5797, -0.6229, -0.3284];

test("the first latent, then each step's noise, go on in torch's order", async () => {
  // While a latent fits the grid, its first elements are those of any shorter tensor.
  const result = await drawNoise({ ...work, seeds: [42n] }, seed42.length);
  for (const [i, numbers] of seed42.entries()) {
    expect(maxAbs(result[i]!.subarray(0, 4), numbers)).toBeLessThanOrEqual(printed);
  }
});

test("every image of a batch has a generator of its own, as on its own", async () => {
  const both = await drawNoise({ ...work, seeds: [0n, 42n] }, 2);
  const first = await drawNoise({ ...work, seeds: [0n] }, 2);
  const second = await drawNoise({ ...work, seeds: [42n] }, 2);
  expect(maxAbs(first[0]!.subarray(0, 8), seed0)).toBeLessThanOrEqual(printed);
  for (const [i, latents] of both.entries()) {
    expect(latents).toEqual(Float32Array.from([...first[i]!, ...second[i]!]));
  }
});

test("all ranks sample the same noise, and all 64 bits of a seed count", async () => {
  const seeds = [42n + (1n << 40n)];
  const [, alone] = await drawNoise({ ...work, seeds }, 2);
  const [, shared] = await drawNoise({ ...work, seeds, rankCount: 2 }, 2);
  expect(shared!).toEqual(alone!);
  expect(alone![0]).not.toBeCloseTo(seed42[1]![0]!, 4);
});

test("without the flag it is torch's CPU generator", async () => {
  const [cpu] = await drawNoise({ ...work, rng: undefined, seeds: [0n] }, 1);
  // torch.manual_seed(0); torch.randn(...) on the CPU, as golden.safetensors has it.
  expect(maxAbs(cpu!.subarray(0, 4), [-1.1258, -1.1524, -0.2506, -0.4339])).toBeLessThanOrEqual(
    printed,
  );
});

const recorded: {
  probes: number[];
  batch: { seed: number; noise: number[][] };
  variation: { seed: number; other: number; strength: number; noise: number[] };
} = await Bun.file(join(import.meta.dir, "../fixtures/brownian.json")).json();

test("a batch is ComfyUI's prepare_noise, together and one by one, and goes on so", async () => {
  const { probes, batch } = recorded;
  const count = batch.noise.length;
  const noisePlaces = batch.noise.map((_, place) => place);
  const seeds = noisePlaces.map(() => BigInt(batch.seed));
  const cpu = { ...work, rng: "cpu", noiseBatch: count } as const;
  const [first, next] = await drawNoise({ ...cpu, seeds, noisePlaces }, 2);
  const each = first!.length / count;
  for (const place of noisePlaces) {
    const range = [place * each, (place + 1) * each] as const;
    const alone = await drawNoise({ ...cpu, seeds: [seeds[0]!], noisePlaces: [place] }, 2);
    expect(alone[0]).toEqual(first!.slice(...range));
    expect(alone[1]).toEqual(next!.slice(...range));
    const own = probes.map((index) => alone[0]![index]!);
    // torch's own sine and cosine differ in the last place.
    expect(maxAbs(own, batch.noise[place]!)).toBeLessThanOrEqual(1e-6);
  }
  // One generator, one number after the other: the second tensor of a batch follows the first.
  const following = await drawNoise({ ...work, rng: "cpu", seeds: [seeds[0]!] }, 2 * count);
  expect(next!).toEqual(Float32Array.from(following.slice(count).flatMap((each) => [...each])));
});

test("steps with a new generator: the seed's on a GPU, the next seed's on a CPU", async () => {
  const noise = { ...work, rng: "cpu", noiseSource: "new_generator", seeds: [42n] } as const;
  const [first, ofGpu] = await drawNoise({ ...noise, noiseRng: "cuda" }, 2);
  const [, ofCpu] = await drawNoise({ ...noise, noiseRng: "cpu", noiseSeedDelta: 1n }, 2);
  expect(maxAbs(ofGpu!.subarray(0, 4), seed42[0]!)).toBeLessThanOrEqual(printed);
  const cpu = { ...work, rng: "cpu" } as const;
  expect([first]).toEqual(await drawNoise({ ...cpu, seeds: [42n] }, 1));
  expect([ofCpu]).toEqual(await drawNoise({ ...cpu, seeds: [43n] }, 1));
});

test("a variation is A1111's interpolation, of any generator's numbers", async () => {
  const { probes, variation } = recorded;
  const between = {
    ...{ ...work, seeds: [BigInt(variation.seed)], variationSeeds: [BigInt(variation.other)] },
    variationStrength: variation.strength,
  };
  const [cpu] = await drawNoise({ ...between, rng: "cpu" }, 1);
  const own = probes.map((index) => cpu![index]!);
  // Sums of a column in f32 there.
  expect(maxAbs(own, variation.noise)).toBeLessThanOrEqual(2e-6);
  const ends = [await drawNoise({ ...between, variationStrength: 1e-7 }, 1)];
  ends.push(await drawNoise({ ...work, seeds: between.seeds }, 1));
  expect(maxAbs(ends[0]![0]!, ends[1]![0]!)).toBeLessThanOrEqual(1e-5);
  // Steps go on with the seed's generator.
  const [, step] = await drawNoise({ ...between, rng: "cpu" }, 2);
  const [, plain] = await drawNoise({ ...work, rng: "cpu", seeds: between.seeds }, 2);
  expect(step).toEqual(plain!);
});

test("what the library cannot fill is refused", async () => {
  const places = drawNoise({ ...work, seeds: [1n], noiseBatch: 2, noisePlaces: [2] }, 1);
  await expect(places).rejects.toThrow("the noise of image 2 of 2");
  const range = { noiseSource: "brownian", brownianMin: 3, brownianMax: Number.NaN } as const;
  await expect(drawNoise({ ...work, seeds: [1n], ...range }, 1)).rejects.toThrow("Brownian path");
});
