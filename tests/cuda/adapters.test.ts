/**
 * Adapters on the emulated GPU: weights change in place, so that graphs captured before are
 * replayed; the image is the CPU's, and without adapters it has its bits back.
 */

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import type { Adapter } from "../../src/native/adapters.ts";
import type { ImageResult, Session } from "../../src/pipeline/session.ts";
import {
  encoderFile,
  folder,
  keysOf,
  randomAdapter,
  removeAdapters,
  scaled,
  unetFile,
  vaeFile,
} from "../support/adapter-file.ts";
import { relativeL2 } from "../support/compare.ts";
import { draw, latentsOf, requestOf, type Work, withSession } from "../support/draw.ts";
import { emulated } from "../support/emulator.ts";
import { measured } from "../support/measured.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);
afterAll(removeAdapters);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const size = { width: 32, height: 64, stepCount: 2, guidanceScale: 1, wantDecoded: true };
const weights = {
  [unetFile]: keysOf(unetFile, /(to_(q|k|v|out\.0)|conv[12]|proj_in|ff\.net\.2)\.(weight|bias)$/),
  [encoderFile]: keysOf(encoderFile, /(q_proj|fc1)\.weight$/),
  // Their biases are stored times the residual scale where activations are f16.
  [vaeFile]: keysOf(vaeFile, /^decoder.*conv2\.(weight|bias)$/),
};
const first = randomAdapter("gpu-first", weights, { seed: 1, size: 0.02 });
const second = randomAdapter(
  "gpu-second",
  { [unetFile]: weights[unetFile]!.slice(9) },
  { seed: 2 },
);
const one = [scaled(first.adapter, 0.8)];
const two = [scaled(first.adapter, -0.5), scaled(second.adapter, 0.5)];

async function image(session: Session, work: Work, adapters: Adapter[]) {
  const result = await session.image(requestOf({ ...work, adapters }));
  const captured = result.ranks.reduce((sum, { graphsCaptured }) => sum + graphsCaptured, 0);
  const replayed = result.ranks.reduce((sum, { graphsReplayed }) => sum + graphsReplayed, 0);
  return { latents: latentsOf(result), image: result.image!, captured, replayed, ...result.merged };
}

describe.each([
  { dtype: "f16", rankCount: 1 },
  { dtype: "bf16", rankCount: 1 },
  { dtype: "f16", rankCount: 2 },
] as const)("in $dtype on $rankCount GPU(s)", ({ dtype, rankCount }) => {
  const work: Work = { model, ...size, rankCount, gpu: emulated({ dtype }) };
  const bar = dtype === "f16" ? 1e-2 : 5e-2;

  test("sets change without a graph captured again, and leave no trace", async () => {
    const cpu = { ...work, gpu: null, rankCount: 1 };
    const theirs: ImageResult[] = [];
    for (const adapters of [[], one, two]) theirs.push(await draw({ ...cpu, adapters }));
    await withSession(work, async (session) => {
      // What runs once in an image is launched in the first one, and captured in the second.
      for (let i = 0; i < 2; i++) await image(session, work, []);
      const plain = await image(session, work, []);
      const seen: Awaited<ReturnType<typeof image>>[] = [];
      for (const adapters of [one, two, one, [], two, []]) {
        seen.push(await image(session, work, adapters));
      }
      for (const { captured, replayed } of [plain, ...seen]) {
        expect(captured).toBe(0);
        expect(replayed).toBeGreaterThan(0);
      }
      const order = [1, 2, 1, 0, 2, 0];
      for (const [i, { latents, image: decoded }] of seen.entries()) {
        const their = theirs[order[i]!]!;
        const error = relativeL2(latents, latentsOf(their));
        expect(measured(`latents of adapter set ${order[i]}`, error, bar)).toBeLessThan(bar);
        expect(relativeL2(decoded, their.image!)).toBeLessThan(bar);
      }
      expect(relativeL2(latentsOf(theirs[0]!), latentsOf(theirs[1]!))).toBeGreaterThan(0.05);
      for (const i of [3, 5]) expect(seen[i]!.latents).toEqual(plain.latents);
      for (const i of [3, 5]) expect(seen[i]!.image).toEqual(plain.image);
      expect(seen[2]!.latents).toEqual(seen[0]!.latents);
      expect(seen[4]!.latents).toEqual(seen[1]!.latents);
      // Each set was merged once, and is kept in host memory.
      expect(seen[5]!.weightCount).toBe(seen[1]!.weightCount);
    });
  });
});

test("a set that fails halfway leaves the next image right", async () => {
  const work: Work = { model, ...size, gpu: emulated() };
  const damaged = join(folder, "no-header.safetensors");
  writeFileSync(damaged, "no header");
  await withSession(work, async (session) => {
    const plain = await image(session, work, []);
    const adapted = await image(session, work, one);
    // The last weight does not hold the sum: all before it have been uploaded.
    const targets = first.adapter.targets.map((target, i, { length }) =>
      i === length - 1 ? { ...target, scale: 1e9 } : target,
    );
    for (const adapters of [
      [{ ...first.adapter, targets }],
      [{ ...first.adapter, path: damaged }],
    ]) {
      for (const [after, expected] of [
        [one, adapted],
        [[], plain],
      ] as const) {
        await expect(image(session, work, adapters)).rejects.toThrow(/LoRAs applied|no-header/);
        expect((await image(session, work, [...after])).latents).toEqual(expected.latents);
      }
    }
  });
});
