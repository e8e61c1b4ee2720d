/**
 * Parity with PyTorch and diffusers: every measure of `bun run bench parity` against its limit.
 */
import { expect, test } from "bun:test";
import { type Measure, measureParity } from "../../src/bench/support/parity.ts";

const measures: Measure[] = await Array.fromAsync(measureParity());

test("there is something to compare with", () => {
  expect(new Set(measures.map(({ model }) => model))).toEqual(
    new Set(["torch", "golden", "wide", "mini"]),
  );
});

test("every sampler and stage that the golden model has a bar for is measured", () => {
  const golden = measures.filter(({ model }) => model === "golden").map(({ what }) => what);
  const names = [
    ...["euler", "euler_a", "ddim", "euler_karras", "euler_trailing", "heun", "unipc"],
    ...["dpmpp_2m", "dpmpp_2m_karras", "dpmpp_2m_sde"],
  ];
  // A sampler that lost its class name would be passed over in silence.
  const wanted = [
    "token ids of 5 prompts, both tokenizers",
    ...["text.prompt_embeds", "text.pooled", "UNet forward", "VAE decode", "VAE encode"],
    "image of euler",
    ...["euler", "euler_a", "ddim"].map((name) => `latents after 6 steps of ${name}_rescale_0.7`),
    ...["timesteps of lcm", "latents after 6 steps of lcm"],
    ...names.flatMap((name) => [`timesteps of ${name}`, `latents after 12 steps of ${name}`]),
    ...names.filter((name) => name !== "ddim").map((name) => `sigmas of ${name}`),
  ];
  expect(wanted.filter((what) => !golden.includes(what))).toEqual([]);
});

test.each(measures)("$model: $what is within $allowed $unit", ({ measured, allowed }) => {
  expect(measured).toBeLessThanOrEqual(allowed);
});
