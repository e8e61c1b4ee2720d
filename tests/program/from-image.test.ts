/**
 * `--from-image` as users run it: an image of random settings, generated again from what it
 * carries, is the same file.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { writeRandomLora } from "../../src/bench/support/random-lora.ts";
import { writeSingleFile } from "../../src/bench/support/single-file.ts";
import { runCli } from "../../src/cli.ts";
import { HashCache } from "../../src/library/hashes.ts";
import { recallImage } from "../../src/metadata.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { resources } from "../../src/resources.ts";
import {
  compatNames,
  emphases,
  emptyNegatives,
  firstSigmas,
  noiseSamplers,
  promptSyntaxes,
  rngs,
  schedulers,
  stepRngs,
  syncModes,
  timestepRoundings,
  timestepSpacings,
} from "../../src/settings/names.ts";
import { sampled, seedName } from "../support/seed.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-again-"));
const models = join(folder, "models");
const before = { ...process.env };
beforeAll(() => {
  process.env.BASEDXL_CACHE_DIR = join(folder, "cache");
  process.env.BASEDXL_MODELS_DIR = models;
  delete process.env.BASEDXL_MODEL;
  mkdirSync(join(models, "loras"), { recursive: true });
});
afterAll(() => {
  for (const name of ["BASEDXL_CACHE_DIR", "BASEDXL_MODELS_DIR", "BASEDXL_MODEL"]) {
    if (before[name] === undefined) delete process.env[name];
    else process.env[name] = before[name];
  }
  rmSync(folder, { recursive: true });
});

const quiet = ["--device", "cpu", "--quiet"];

/** In the place of steps and scheduler. */
const explicitLevels = [
  ["--sigmas", "14.6,5,1.25,0.3,0", "--scheduler", "euler"],
  ["--timesteps", "900,500,10", "--scheduler", "heun"],
  ["--sigmas", "ays", "--steps", "4", "--scheduler", "dpmpp_2m"],
];

/** Flags of a small image, at random; every flag that changes bits on a CPU. */
const flags = fc
  .record({
    prompt: fc.constantFrom(
      "a (red:1.4) circle",
      "Negative prompt: a\nSteps: 1, b: 2, c: 3",
      "\u96ea \u{1f98a}",
    ),
    compat: fc.option(fc.constantFrom(...compatNames)),
    syntax: fc.option(fc.constantFrom(...promptSyntaxes)),
    emphasis: fc.option(fc.constantFrom(...emphases)),
    empty: fc.option(fc.constantFrom(...emptyNegatives)),
    prompt2: fc.option(fc.constantFrom("(a dog:1.3)", "a [cat]")),
    negative: fc.option(fc.constantFrom("", "blurry\ndark")),
    guidance: fc.constantFrom("1", "2.5", "7"),
    rescale: fc.constantFrom("0", "0.7"),
    window: fc.option(fc.constantFrom(["0.4", "1"], ["0", "0.7"])),
    seed: fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }),
    rng: fc.option(fc.constantFrom(...rngs)),
    stepRng: fc.option(fc.constantFrom(...stepRngs)),
    ensd: fc.option(fc.constantFrom("31337")),
    variation: fc.option(fc.constantFrom("0.25", "1")),
    noiseSampler: fc.option(fc.constantFrom(...noiseSamplers)),
    width: fc.constantFrom("32", "64"),
    height: fc.constantFrom("128", "160"),
    steps: fc.integer({ min: 3, max: 5 }),
    scheduler: fc.constantFrom(...schedulers, "DPM++ 2M Karras"),
    rounding: fc.option(fc.constantFrom(...timestepRoundings)),
    first: fc.option(fc.constantFrom(...firstSigmas)),
    eta: fc.option(fc.constantFrom("0", "0.4", "1")),
    sNoise: fc.option(fc.constantFrom("0.5", "1.003")),
    spacing: fc.option(fc.constantFrom(...timestepSpacings)),
    levels: fc.option(fc.constantFrom(...explicitLevels)),
    prediction: fc.constantFrom("auto", "v_prediction"),
    ranks: fc.constantFrom("1", "2", "4"),
    split: fc.boolean(),
    mode: fc.constantFrom(...syncModes),
    extrapolate: fc.option(fc.boolean()),
    warmup: fc.option(fc.constantFrom("0", "2")),
    ending: fc.constantFrom("png", "jpg", "webp", "avif"),
  })
  .map((f) => ({
    ending: f.ending,
    args: [
      ...["--prompt", f.prompt, "--guidance-scale", f.guidance],
      // CFG++ has a scale of its own.
      ...["--guidance-rescale", f.scheduler.endsWith("cfg_pp") ? "0" : f.rescale],
      ...["--seed", String(f.seed), "--width", f.width, "--height", f.height],
      ...(f.levels ?? ["--steps", String(f.steps), "--scheduler", f.scheduler]),
      ...["--gpus", f.ranks],
      ...(f.window === null ? [] : ["--guidance-start", f.window[0]!]),
      ...(f.window === null ? [] : ["--guidance-end", f.window[1]!]),
      // A path needs levels.
      ...(f.noiseSampler === null || f.levels === null ? [] : ["--noise-sampler", f.noiseSampler]),
      ...["--prediction-type", f.prediction, "--sync-mode", f.mode],
      ...optional({
        ...{ "prompt-2": f.prompt2, "negative-prompt": f.negative, compat: f.compat, rng: f.rng },
        ...{ "prompt-syntax": f.syntax, emphasis: f.emphasis, "empty-negative": f.empty },
        ...{
          "step-rng": f.stepRng,
          ensd: f.ensd,
          "variation-strength": f.variation,
          "variation-seed": f.variation && "7",
          "timestep-rounding": f.rounding,
          "first-sigma": f.first,
          "s-noise": f.sNoise,
          eta: f.eta,
        },
      }),
      ...(f.spacing === null || f.levels !== null ? [] : ["--timestep-spacing", f.spacing]),
      ...(f.split ? [] : ["--no-split-batch"]),
      ...(f.extrapolate === null ? [] : [`--${f.extrapolate ? "" : "no-"}extrapolate-halos`]),
      ...(f.warmup === null ? [] : ["--warmup-steps", f.warmup]),
    ],
  }));

/** Flags that are there or not. */
function optional(flags: Readonly<Record<string, string | null>>): string[] {
  return Object.entries(flags).flatMap(([flag, value]) =>
    value === null ? [] : [`--${flag}`, value],
  );
}

async function sample(...args: string[]): Promise<void> {
  expect(await runCli(["sample", ...args])).toBe(0);
}

describe("an image", () => {
  test(`30 images of random settings are the same file again (${seedName})`, async () => {
    for (const { args, ending } of sampled(flags, 30)) {
      const [first, second] = ["first", "second"].map((name) => join(folder, `${name}.${ending}`));
      await sample(...args, ...quiet, "--out", first!);
      await sample("--from-image", first!, "--out", second!, "--quiet");
      const isSame = readFileSync(first!).equals(readFileSync(second!));
      expect({ args, isSame }).toEqual({ args, isSame: true });
    }
  }, 120_000);

  test("one that started from another, with that given again", async () => {
    const small = ["--steps", "4", "--width", "64", "--height", "64", ...quiet];
    const [start, first, again] = ["start", "of-it", "again"].map((name) =>
      join(folder, `${name}.png`),
    );
    await sample("a cat", ...small, "--seed", "3", "--out", start!);
    const from = ["--image", start!, "--extend", "left=32", "--mask-blur", "2"];
    await sample("a dog", ...from, ...small.slice(0, 2), ...quiet, "--out", first!);
    await sample("--from-image", first!, "--image", start!, "--out", again!, "--quiet");
    expect(readFileSync(again!).equals(readFileSync(first!))).toBe(true);
    const { settings, recalledInput, warnings } = await recallImage(first!);
    expect(settings).not.toHaveProperty("extend");
    expect(recalledInput?.image).toMatch(/^[0-9a-f]{64}$/);
    expect(warnings.join()).toContain("give that by --image.");
  }, 60_000);

  test("the images of a batch, one by one, and without parameters", async () => {
    const small = ["--steps", "2", "--width", "64", "--height", "64", ...quiet];
    const out = join(folder, "n.png");
    await sample("a cat", "--num-images", "2", "--batch-size", "2", ...small, "--out", out);
    const second = join(folder, "n-2.png");
    const again = join(folder, "again.png");
    await sample("--from-image", second, "--out", again, "--quiet");
    expect(readFileSync(again).equals(readFileSync(second))).toBe(true);
    const batch = ["--noise-order", "batch", "--scheduler", "euler_a", "--seed", "5"];
    await sample("a cat", "--num-images", "3", ...batch, ...small, "--out", out);
    await sample("--from-image", second, "--out", again, "--quiet");
    expect(readFileSync(again).equals(readFileSync(second))).toBe(true);
    const { settings: placed } = await recallImage(second);
    expect(placed).toMatchObject({ seed: 5n, noiseIndex: 1, noiseBatch: 3 });
    await sample("a cat", ...batch, ...small, "--out", again);
    expect(readFileSync(again).equals(readFileSync(second))).toBe(false);
    // Prompts differ between images: each says its own, with the choices that were made.
    const prompts = join(folder, "prompts.txt");
    writeFileSync(prompts, "a {red|green|blue} circle\na {big|small} cat\n");
    const lines = ["--prompt-file", prompts, "--dynamic-prompts", "--seed", "3"];
    const list = join(folder, "list.png");
    await sample(...lines, ...small, "--out", list);
    const [one, two] = ["list-1.png", "list-2.png"].map((name) => join(folder, name));
    await sample("--from-image", two!, "--out", again, "--quiet");
    expect(readFileSync(again).equals(readFileSync(two!))).toBe(true);
    expect((await recallImage(one!)).settings.prompt).toMatch(/^a (red|green|blue) circle$/);
    await sample("--from-image", two!, ...lines, "--out", list, "--quiet");
    expect(readFileSync(one!).equals(readFileSync(two!))).toBe(false);
    // What is overridden changes, and is in the new image.
    await sample("a dog", "--from-image", second, "--steps", "1", "--out", again, "--quiet");
    const { settings } = await recallImage(again);
    expect(settings).toMatchObject({ prompt: "a dog", stepCount: 1, width: 64 });
    await sample("--from-image", second, "--no-metadata", "--out", again, "--quiet");
    expect(await runCli(["sample", "--from-image", again, "--quiet"])).toBe(2);
  }, 60_000);

  test("with LoRAs in a tag and by flag, by name, and by hash where they have moved", async () => {
    const model = await openModelFolder(resources.bundledModel());
    const [ink, oil] = ["ink", "oil"].map((name) => join(models, "loras", `${name}.safetensors`));
    writeRandomLora(ink!, model, /attn1\.to_q/);
    writeRandomLora(oil!, model, /attn2\.to_k/);
    const [first, second] = ["l1.png", "l2.png"].map((name) => join(folder, name));
    const small = ["--steps", "2", "--width", "64", "--height", "64", ...quiet];
    const lora = ["--lora", `${oil}:0.7:0.2`];
    await sample("a cat <lora:ink:0.8>", ...lora, ...small, "--out", first!);
    const again = ["--from-image", first!, "--out", second!, "--quiet"];
    await sample(...again);
    expect(readFileSync(first!).equals(readFileSync(second!))).toBe(true);
    const text = readFileSync(first!).toString("latin1");
    expect(text).toMatch(/Lora hashes: "oil: [0-9a-f]{12}, ink: [0-9a-f]{12}", Version/);
    expect(text).not.toContain(folder);

    // Whoever knows the hash knows the file: its name in another folder.
    const elsewhere = join(folder, "renamed.safetensors");
    renameSync(ink!, elsewhere);
    const lost = await recallImage(first!);
    expect(lost.warnings).toEqual([expect.stringMatching(/^The LoRA ink \([0-9a-f]{10}\) is/)]);
    await sample("a cat", "--lora", elsewhere, ...small, "--out", second!);
    const found = await recallImage(first!);
    expect(found.warnings).toEqual([]);
    expect(found.settings.loras?.map(({ file }) => file)).toEqual([elsewhere, oil!]);
  }, 60_000);

  test("of one file, by hash and by name, and of a folder with another VAE", async () => {
    const golden = await openModelFolder(goldenModel);
    const file = join(models, "golden.safetensors");
    writeSingleFile(golden, file);
    const [first, second] = ["m1.png", "m2.png"].map((name) => join(folder, name));
    const small = ["--steps", "2", "--width", "64", "--height", "64", ...quiet];
    const config = ["--config", goldenModel];
    await sample("a cat", "--model", file, ...config, ...small, "--out", first!);
    const sha256 = new Bun.CryptoHasher("sha256").update(readFileSync(file)).digest("hex");
    expect(readFileSync(first!).toString("latin1")).toContain(
      `Size: 64x64, Model hash: ${sha256.slice(0, 10)}, Model: golden, RNG: CPU`,
    );
    const again = ["--from-image", first!, "--out", second!, "--quiet"];
    await sample(...again, ...config);
    expect(readFileSync(first!).equals(readFileSync(second!))).toBe(true);
    const byHash = await recallImage(first!);
    expect(byHash.settings.model).toBe(file);
    expect(byHash.warnings).toEqual([expect.stringContaining("made with --config")]);
    rmSync(process.env.BASEDXL_CACHE_DIR!, { recursive: true });
    expect((await recallImage(first!)).settings.model).toBe(file);
    writeFileSync(file, Buffer.concat([readFileSync(file), Buffer.alloc(1)]));
    const cache = new HashCache();
    await cache.hashOf(file);
    cache.save();
    const other = await recallImage(first!);
    expect(other.settings.model).toBe(file);
    expect(other.warnings.join()).toContain("golden.safetensors has another hash than golden (");
    rmSync(file);
    const lost = await recallImage(first!);
    expect(lost.settings.model).toBeUndefined();
    expect(lost.warnings.join()).toContain(`The model golden (${sha256.slice(0, 10)}) is not`);

    const vae = golden.weights.vae.files[0]!;
    const named = ["--model", goldenModel, "--vae", vae];
    await sample("a cat", ...named, ...small, "--out", first!);
    await sample(...again);
    expect(readFileSync(first!).equals(readFileSync(second!))).toBe(true);
    const { settings, warnings } = await recallImage(first!);
    expect([settings.model, settings.vae, warnings]).toEqual([goldenModel, vae, []]);
    const text = readFileSync(first!).toString("latin1");
    expect(text).toMatch(/, Model: model, VAE hash: [0-9a-f]{10}, VAE: diffusion_pytorch_model\./);
  }, 60_000);
});
