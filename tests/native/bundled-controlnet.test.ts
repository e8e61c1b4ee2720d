/**
 * The bundled ControlNet of outlines with the bundled model: found by its name, it puts things
 * where their outlines are, and asynchronous patches stay as near to one rank as without it.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { openModelFolder } from "../../src/models/folder.ts";
import { type GenerateRequest, Pipeline } from "../../src/pipeline.ts";
import { resources } from "../../src/resources.ts";
import { relativeL2 } from "../support/compare.ts";
import { measured } from "../support/measured.ts";

// Many images each, and the cores may be busy.
setDefaultTimeout(120_000);

const side = 256;
const corner = { left: 24, top: 32, right: 104, bottom: 112 };
const usual: GenerateRequest = {
  prompt: "a blue square on a pink background",
  ...{ width: side, height: side, stepCount: 25, guidanceScale: 4 },
};
const outline: GenerateRequest = {
  controlnet: ["mini-outlines"],
  controlImage: [{ width: side, height: side, pixels: squareOutline() }],
};

let pipelines: Map<number, Pipeline>;
beforeAll(async () => {
  const model = await openModelFolder(resources.bundledModel());
  const open = (rankCount: number) =>
    Pipeline.open({ model, devices: { device: "cpu", rankCount }, first: usual });
  pipelines = new Map([
    [1, await open(1)],
    [4, await open(4)],
  ]);
});
afterAll(async () => {
  for (const pipeline of pipelines.values()) await pipeline.close();
});

test("a thing is where its outline is", async () => {
  const request = { ...usual, ...outline, seeds: [5n] };
  const { images } = await pipelines.get(1)!.generate(request);
  const { pixels } = images[0]!;
  let right = 0;
  for (let y = 0; y < side; y += 1) {
    for (let x = 0; x < side; x += 1) {
      const at = 3 * (y * side + x);
      const isBlue = pixels[at + 2]! > pixels[at]!;
      if (isBlue === isInside(x, y)) right += 1;
    }
  }
  // 0.76 without the ControlNet: the square is in the middle then, and larger.
  expect(right / side ** 2).toBeGreaterThan(0.97);
});

describe("the error of four asynchronous patches", () => {
  test("is at most 1.2 times that without the ControlNet", async () => {
    const errors = await Promise.all([usual, { ...usual, ...outline }].map(meanError));
    const allowed = 1.2 * errors[0]!;
    expect(measured("with the ControlNet", errors[1]!, allowed)).toBeLessThan(allowed);
  });
});

/** Of the latents of four seeds, relative L2 against one rank. */
async function meanError(request: GenerateRequest): Promise<number> {
  const seeds = [1n, 2n, 3n, 4n];
  const drawn = [1, 4].map(async (ranks) => {
    const wanted = { ...request, seeds, wantLatents: true, splitBatch: false };
    return (await pipelines.get(ranks)!.generate(wanted)).latents!;
  });
  const [one, patches] = await Promise.all(drawn);
  return relativeL2(patches!, one!);
}

function isInside(x: number, y: number): boolean {
  return x >= corner.left && x < corner.right && y >= corner.top && y < corner.bottom;
}

/** White lines of two pixels on black, RGB. */
function squareOutline(): Uint8Array {
  const pixels = new Uint8Array(3 * side * side);
  for (let y = 0; y < side; y += 1) {
    for (let x = 0; x < side; x += 1) {
      const isInner = isInside(x - 2, y - 2) && isInside(x + 2, y + 2);
      if (isInside(x, y) && !isInner) pixels.fill(255, 3 * (y * side + x), 3 * (y * side + x + 1));
    }
  }
  return pixels;
}
