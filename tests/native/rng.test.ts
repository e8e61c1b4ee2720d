/**
 * `--rng cuda` on the CPU: the first latent and the steps' noise are the numbers that torch prints
 * on CUDA devices, each image's from its own generator, for any number of ranks.
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
