/**
 * Brownian noise against torchsde (`make_brownian.py` has how the hashes are made): each image's
 * own tree, one tree of a batch, levels of zero-terminal SNR, numbers of the CPU and of a GPU.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { maxAbs } from "../support/compare.ts";
import { type BrownianWork, drawBrownian } from "../support/noise.ts";

setDefaultTimeout(60_000);

const fixtures = join(import.meta.dir, "../fixtures");
const model = await openModelFolder(join(fixtures, "golden/model"));
const work = { model, width: 64, height: 64, guidanceScale: 1 } as const;

interface Case {
  seeds: string[];
  images?: number;
  rng?: "cuda";
  levels: [number, number][];
  /** Of all numbers, over exact logarithms, sines and cosines. */
  sha256: string;
  /** At some places, over torch's own. */
  noise: number[][];
}
const recorded: { probes: number[]; cases: Record<string, Case> } = await Bun.file(
  join(fixtures, "brownian.json"),
).json();

/** Some twenty sums of numbers of about 1, each a unit or two off in the last place. */
const ownNormals = 3e-6;
/** cuRAND's approximate logarithm, sine and cosine are not in the fixture. */
const printed = 1e-6;

test.each(Object.entries(recorded.cases))("%s: torchsde's path", async (_, each) => {
  const { seeds, images = 1, rng, levels, sha256, noise } = each;
  const isShared = seeds.length < images;
  const steps = await drawBrownian({
    ...work,
    rng,
    levels,
    seeds: Array.from({ length: images }, (_, i) => BigInt(seeds[isShared ? 0 : i]!)),
    ...(isShared && {
      noiseBatch: images,
      noisePlaces: Array.from({ length: images }, (_, i) => i),
    }),
  });
  for (const [step, values] of steps.entries()) {
    const probes = recorded.probes.map((place) => values[place]!);
    expect(maxAbs(probes, noise[step]!)).toBeLessThanOrEqual(rng === "cuda" ? printed : ownNormals);
  }
  const hash = createHash("sha256");
  for (const values of steps) hash.update(new Uint8Array(values.buffer));
  expect(hash.digest("hex")).toBe(sha256);
});

test("ranks make the same path, and an image of a batch alone the same as in it", async () => {
  const levels: BrownianWork["levels"] = [
    [14.6, 6],
    [6, 1.5],
  ];
  const places = { noiseBatch: 3, noisePlaces: [0, 1, 2] };
  const all = await drawBrownian({ ...work, levels, seeds: [9n, 9n, 9n], ...places });
  const one = await drawBrownian({
    ...{ ...work, levels, seeds: [9n], rankCount: 2 },
    ...{ noiseBatch: 3, noisePlaces: [2] },
  });
  for (const [step, values] of one.entries()) {
    expect(values).toEqual(all[step]!.subarray(2 * values.length));
  }
});

test("the script that makes the fixture has its cases", () => {
  const script = readFileSync(join(import.meta.dir, "../reference/make_brownian.py"), "utf8");
  for (const name of Object.keys(recorded.cases)) expect(script).toContain(`"${name}": {"seeds"`);
});
