/**
 * Flags of `sample` from raw arguments to a request: what is accepted, and for everything that is
 * refused the whole sentence.
 */
import { describe, expect, test } from "bun:test";
import { homedir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "citty";
import fc from "fast-check";
import { BasedXLError } from "../../src/errors.ts";
import type { Model } from "../../src/models/model.ts";
import { planRequest } from "../../src/pipeline/request.ts";
import { parseSampleOptions, type SampleOptions } from "../../src/settings/options.ts";
import { sampleEmptyAllowed, sampleFlags } from "../../src/settings/sample-flags.ts";
import { schedulers } from "../../src/settings/samplers.ts";
import { settingKeys, settings } from "../../src/settings/table.ts";
import { asFlag } from "../../src/settings/values.ts";
import { listSeparator, normalizeFlags } from "../../src/terminal/flags.ts";
import { fakeModel } from "../support/fake-model.ts";

function parse(...argv: string[]): SampleOptions {
  const checked = normalizeFlags(argv, sampleFlags, { emptyAllowed: sampleEmptyAllowed });
  return parseSampleOptions(parseArgs(checked, sampleFlags), { randomSeed: () => 42n });
}

function resolve(argv: string[], model: Model = fakeModel({ defaults: { prompt: "p" } })) {
  const options = parse(...argv);
  const { settings, warnings, wantLatents, batches } = planRequest(
    options,
    model,
    options.rankCount,
    asFlag,
  );
  const seeds = batches.flatMap(({ images }) => images.map(({ seed }) => seed));
  return { request: { ...settings, seeds, wantLatents }, warnings };
}

/** The sentence of the error, which must be a wrong option. */
function sentence(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof BasedXLError && error.code === "bad-option") return error.message;
    throw error;
  }
  throw new Error("nothing was refused");
}

const seedRange = "must be a whole number from 0 to 9223372036854775807 (2^63-1)";
const steps = "--num-inference-steps (--steps)";

describe("flags that are refused as they are typed", () => {
  test.each([
    [["--sead", "3"], "There is no flag --sead. Did you mean --seed? --help lists them all."],
    [["--frobnitz"], "There is no flag --frobnitz. --help lists them all."],
    [["--stpes=3"], "There is no flag --stpes. Did you mean --steps? --help lists them all."],
    [["--heigth=64"], "There is no flag --heigth. Did you mean --height? --help lists them all."],
    [["-s", "3"], "There is no flag -s. --help lists them all."],
    [
      ["-tall house"],
      'There is no flag -tall house. A prompt that begins with "-" is written --prompt="-...". ' +
        "--help lists them all.",
    ],
    [
      ["--no-split-bach"],
      "There is no flag --no-split-bach. Did you mean --no-split-batch? --help lists them all.",
    ],
    [["--no-split-batch=yes"], "--no-split-batch takes no value: write it alone."],
    [["--no-seed"], "There is no flag --no-seed. Did you mean --seed? --help lists them all."],
    [["--seed"], "--seed needs a value after it."],
    [
      ["--seed", "--json"],
      '--seed needs a value before --json; one that begins with "--" is written --seed=VALUE.',
    ],
    [["--seed="], "--seed is empty: give it a value, or leave the flag out."],
    [["--out", " "], "--out is empty: give it a value, or leave the flag out."],
    [["--prompt", ""], "--prompt is empty: give it a value, or leave the flag out."],
    [["--seed", "1", "--seed=2"], "--seed is given twice: keep one of the two."],
    [
      ["--steps", "1", "--num-inference-steps=2"],
      "--steps and --num-inference-steps are the same flag: keep one of the two.",
    ],
    [
      ["--use-karras-sigmas", "--no-use-karras-sigmas"],
      "--use-karras-sigmas and --no-use-karras-sigmas are the same flag: keep one of the two.",
    ],
    [["--json=maybe"], "--json=maybe is not understood: write --json for yes, --no-json for no."],
    [["--no-json=true"], "--no-json takes no value: write it alone."],
    [["--quiet", "--verbose"], "--quiet and --verbose contradict each other: keep one of the two."],
    [
      ["a house", "--prompt", "a tree"],
      'The prompt is given twice, as "a house" and by --prompt "a tree": keep one.',
    ],
    [
      ["a", "house"],
      'The prompt is one argument, but "a" is followed by "house": put it in quotes.',
    ],
    [["  "], "The prompt is empty: say what the image shows."],
  ])("%p", (argv, expected) => {
    expect(sentence(() => parse(...argv))).toBe(expected);
  });
});

describe("values that are refused before a model is known", () => {
  test.each([
    [["--seed", "-1"], `--seed ${seedRange}, not "-1".`],
    [["--seed", "1.5"], `--seed ${seedRange}, not "1.5".`],
    [["--seed", "9223372036854775808"], `--seed ${seedRange}, not "9223372036854775808".`],
    [["--seed", "0x10"], `--seed ${seedRange}, not "0x10".`],
    [["--steps", "0"], `${steps} must be a whole number from 1 to 1000, not "0".`],
    [["--steps", "1001"], `${steps} must be a whole number from 1 to 1000, not "1001".`],
    [["--steps=2.5"], `${steps} must be a whole number from 1 to 1000, not "2.5".`],
    [["--steps", "ten"], `${steps} must be a whole number from 1 to 1000, not "ten".`],
    [["--guidance-scale", "-2"], '--guidance-scale must be a number from 0 to 100, not "-2".'],
    [["--guidance-scale", "NaN"], '--guidance-scale must be a number from 0 to 100, not "NaN".'],
    [
      ["--guidance-scale", "1e999"],
      '--guidance-scale must be a number from 0 to 100, not "1e999".',
    ],
    [["--guidance-rescale", "1.1"], '--guidance-rescale must be a number from 0 to 1, not "1.1".'],
    [["--gpus", "0"], '--gpus must be a whole number from 1 to 16, not "0".'],
    [["--gpus", "17"], '--gpus must be a whole number from 1 to 16, not "17".'],
    [["--threads", "1025"], '--threads must be a whole number from 0 to 1024, not "1025".'],
    [
      ["--warmup-steps", "-1"],
      '--warmup-steps must be auto or a whole number from 0 to 1000, not "-1".',
    ],
    [["--width", "0"], '--width must be a whole number from 1 to 8192, not "0".'],
    [["--height", "9000"], '--height must be a whole number from 1 to 8192, not "9000".'],
    [
      ["--scheduler", "eular"],
      `--scheduler must be ${schedulers.slice(0, -1).join(", ")} or ${schedulers.at(-1)}, not ` +
        '"eular". Did you mean euler?',
    ],
    [["--eta", "1.5"], '--eta must be a number from 0 to 1, not "1.5".'],
    [
      ["--timestep-spacing", "trailling"],
      '--timestep-spacing must be leading, trailing or linspace, not "trailling". ' +
        "Did you mean trailing?",
    ],
    [["--rng", "philox"], '--rng must be cpu or cuda, not "philox".'],
    [["--num-images", "0"], '--num-images must be a whole number from 1 to 64, not "0".'],
    [["--num-images", "65"], '--num-images must be a whole number from 1 to 64, not "65".'],
    [["--batch-size", "0"], '--batch-size must be a whole number from 1 to 8, not "0".'],
    [["--batch-size", "9"], '--batch-size must be a whole number from 1 to 8, not "9".'],
    [
      ["--seed", "9223372036854775805", "--num-images", "4"],
      "--seed 9223372036854775805 leaves no room for the seeds of 4 images, one up each: it " +
        "must be at most 9223372036854775804.",
    ],
    [
      ["--sync-mode", "full-sync"],
      "--sync-mode must be corrected_async_gn, stale_gn, sync_gn, separate_gn, full_sync or " +
        'no_sync, not "full-sync". Did you mean full_sync?',
    ],
    [
      ["--vae-tiling", "--gpus", "2"],
      "--vae-tiling is for one rank: with --gpus 2 the ranks share the decode, exactly. Leave " +
        "one of the two out.",
    ],
    [
      ["--device", "CUDA"],
      '--device must be auto, cpu, cuda or cuda-emulated, not "CUDA". Did you mean cuda?',
    ],
    [["--dtype", "fp16"], '--dtype must be f32, f16, bf16 or int8, not "fp16". Did you mean f16?'],
    [["--transport", "mpi"], '--transport must be auto, peer or nccl, not "mpi".'],
    [["--save-latents", "x.pt"], '--save-latents must name a .safetensors file, not "x.pt".'],
  ])("%p", (argv, expected) => {
    expect(sentence(() => parse(...argv))).toBe(expected);
  });
});

describe("what is refused for a model", () => {
  const unit = "must be a multiple of 32 from 32 to 8192 pixels for this model";
  test.each([
    [["--width", "100"], `--width ${unit}, not 100: the nearest is 96.`],
    [["--height", "1000"], `--height ${unit}, not 1000: the nearest is 992.`],
    [["--width", "3"], `--width ${unit}, not 3: the nearest is 32.`],
    [["--height", "8191"], `--height ${unit}, not 8191: the nearest is 8192.`],
    [
      ["--steps", "4", "--warmup-steps", "5"],
      "--warmup-steps must be from 0 to the number of steps, 4, not 5.",
    ],
    [
      ["--gpus", "8", "--height", "96"],
      "8 ranks are 4 patches, and a height of 96 has rows for 3: use 6 ranks (--gpus 6), or a " +
        "height of at least 128.",
    ],
    [
      ["--gpus", "4", "--height", "96", "--no-split-batch"],
      "4 ranks are 4 patches, and a height of 96 has rows for 3: use 3 ranks (--gpus 3), or a " +
        "height of at least 128.",
    ],
    [
      ["--gpus", "2", "--height", "32", "--guidance-scale", "1"],
      "2 ranks are 2 patches, and a height of 32 has rows for 1: use 1 rank (--gpus 1), or a " +
        "height of at least 64.",
    ],
  ])("%p", (argv, expected) => {
    expect(sentence(() => resolve(argv))).toBe(expected);
  });

  test("a unit that does not divide 8192 lowers the largest size", () => {
    const model = fakeModel({ sizeMultiple: 48, defaults: { prompt: "p" } });
    expect(sentence(() => resolve(["--width", "8192", "--height", "48"], model))).toBe(
      "--width must be a multiple of 48 from 48 to 8160 pixels for this model, not 8192: " +
        "the nearest is 8160.",
    );
  });

  test("no prompt, where the model brings none", () => {
    expect(sentence(() => resolve([], fakeModel()))).toBe(
      "Say what the image shows: --prompt is missing, and the model has none of its own.",
    );
  });
});

const noFiles = {
  promptFile: undefined,
  image: undefined,
  strength: undefined,
  resize: "cover",
  imageBackground: "#ffffff",
  mask: undefined,
  invertMask: false,
  maskBlur: 0,
  maskGrow: 0,
  maskArea: "whole",
  maskContent: "original",
  maskPadding: 32,
  extend: undefined,
  ...{ ipAdapter: [], ipImage: [], ipScale: [], ipStart: [], ipEnd: [], ipEncoder: [] },
  ...{ controlnet: [], controlImage: [], controlScale: [], controlStart: [], controlEnd: [] },
  ...{ controlType: [], controlPreprocess: [] },
} as const;

const exactly = {
  refiner: undefined,
  denoisingEnd: 1,
  ...{ aestheticScore: 6, negativeAestheticScore: 2.5 },
  recipe: undefined,
  quality: "exact",
  deepCache: undefined,
  deepCacheThreshold: undefined,
  deepCacheBranch: 0,
  freshDeep: true,
  crossAttentionGate: undefined,
} as const;

const onePass = {
  hires: undefined,
  hiresStrength: undefined,
  hiresSteps: undefined,
  hiresUpscaler: undefined,
};

describe("what is accepted", () => {
  test("nothing at all", () => {
    expect(parse()).toEqual({
      ...noFiles,
      ...{ prompt: undefined, negativePrompt: undefined },
      ...{ prompt2: undefined, negativePrompt2: undefined },
      compat: "diffusers",
      promptSyntax: undefined,
      emphasis: undefined,
      longPrompts: false,
      clipSkip: 2,
      emptyNegative: undefined,
      ...{ style: undefined, stylesPath: undefined },
      dynamicPrompts: false,
      wildcards: undefined,
      ...{ seeds: [42n], seedIsRandom: true, wantLatents: false },
      rng: undefined,
      ...{ variationSeed: undefined, variationStrength: 0, etaNoiseSeedDelta: 0 },
      ...{ noiseOrder: undefined, noiseBatch: undefined, noiseIndex: 0, stepRng: undefined },
      noiseSampler: "auto",
      imageCount: 1,
      batchSize: 1,
      guidanceScale: undefined,
      ...{ guidanceRescale: 0, guidanceStart: 0, guidanceEnd: 1 },
      ...exactly,
      stepCount: undefined,
      width: undefined,
      height: undefined,
      scheduler: undefined,
      sigmas: undefined,
      timesteps: undefined,
      useKarrasSigmas: undefined,
      timestepSpacing: undefined,
      timestepRounding: "auto",
      firstSigma: "auto",
      ...{ eta: undefined, sNoise: undefined },
      ...onePass,
      model: undefined,
      ...{ config: undefined, vae: undefined, taesd: undefined },
      modelsDir: [],
      predictionType: "auto",
      rescaleBetasZeroSnr: undefined,
      loras: [],
      embeddings: [],
      rankCount: 1,
      threadCount: 0,
      vaeTiling: false,
      device: "auto",
      dtype: undefined,
      shareGpu: false,
      cudaGraphs: true,
      transport: "auto",
      attention: "auto",
      fp16Accumulate: false,
      splitBatch: true,
      syncMode: undefined,
      ...{ extrapolateHalos: undefined, compressExchange: "none", balance: "off" },
      warmupSteps: undefined,
      listSchedulers: false,
      plan: false,
      outPath: "sample.png",
      latentsPath: undefined,
      verbose: false,
      fromImage: undefined,
      ...{ previewSteps: undefined, previewProtocol: "auto" },
      ...{ grid: false, xyz: undefined, cells: true },
      metadata: true,
      quiet: false,
      json: false,
    });
  });

  const flags = [
    "--use-karras-sigmas",
    "--list-schedulers",
    "--plan",
    "--zero-snr",
    "--invert-mask",
    "--no-split-batch",
    "--no-fresh-deep",
    "--share-gpu",
    "--long-prompts",
    "--dynamic-prompts",
    "--no-cuda-graphs",
    "--fp16-accumulate",
    "--no-metadata",
    "--grid",
    "--no-cells",
    "--json",
    "--verbose",
  ];

  const values = {
    "negative-prompt": "dark",
    "from-image": "i.png",
    "prompt-2": "p",
    "negative-prompt-2": "n",
    compat: "a1111",
    "prompt-syntax": "comfyui",
    emphasis: "no_norm",
    "clip-skip": "3",
    "empty-negative": "zeros",
    "prompt-file": "l.txt",
    style: "s",
    styles: "s.csv",
    wildcards: "w",
    preview: "5",
    "preview-protocol": "sixel",
    xyz: "steps=1,2",
    seed: "9223372036854775804",
    rng: "cuda",
    "noise-order": "batch",
    "noise-batch": "8",
    "noise-index": "2",
    "step-rng": "cpu",
    "noise-sampler": "brownian",
    "variation-seed": "9",
    "variation-strength": "0.25",
    ensd: "31337",
    "num-images": "4",
    "batch-size": "3",
    image: "i.png",
    strength: "0.5",
    resize: "fit",
    "image-background": "#000000",
    mask: "m.png",
    "mask-blur": "4",
    "mask-grow": "6",
    "mask-area": "masked",
    "mask-content": "fill",
    "mask-padding": "16",
    extend: "left=64",
    "ip-adapter": ["i", "j"].join(listSeparator),
    "ip-image": "k.png",
    "ip-scale": ["0.5", "1"].join(listSeparator),
    "ip-start": "0.2",
    "ip-end": "0.8",
    "ip-encoder": "e",
    controlnet: ["c", "d"].join(listSeparator),
    "control-image": "h.png",
    "control-scale": ["0.5", "1"].join(listSeparator),
    "control-start": "0.1",
    "control-end": "0.9",
    "control-type": ["canny", "6"].join(listSeparator),
    "control-preprocess": "canny",
    "guidance-scale": "7.5",
    "guidance-rescale": ".7",
    "guidance-start": "0.2",
    "guidance-end": "0.9",
    recipe: "lcm",
    steps: "30",
    width: "64",
    height: "96",
    scheduler: "euler_a",
    sigmas: "karras",
    timesteps: "999,499",
    "timestep-spacing": "trailing",
    "timestep-rounding": "nearest",
    "first-sigma": "sqrt",
    hires: "1.5",
    "hires-strength": "0.3",
    "hires-steps": "12",
    "hires-upscaler": "lanczos",
    eta: "0.5",
    "s-noise": "1.5",
    quality: "high",
    "deep-cache": "2,4@0.5",
    "deep-cache-threshold": "0.25",
    "deep-cache-branch": "1",
    "cross-attention-gate": "12",
    model: "m",
    config: "c",
    vae: "v",
    taesd: "t",
    "models-dir": "d",
    "prediction-type": "v_prediction",
    lora: "l.safetensors:0.8:0.5",
    embedding: "a=b/e.safetensors=sad",
    gpus: "2",
    threads: "3",
    device: "cpu",
    dtype: "bf16",
    transport: "nccl",
    attention: "own",
    "sync-mode": "full_sync",
    "compress-exchange": "int8",
    balance: "2:1",
    "warmup-steps": "4",
    refiner: "r.safetensors",
    "denoising-end": "0.8",
    "aesthetic-score": "7",
    "negative-aesthetic-score": "2",
    out: "o.webp",
    "save-latents": "l.safetensors",
  };

  const everyOption: ReturnType<typeof parse> = {
    refiner: "r.safetensors",
    denoisingEnd: 0.8,
    ...{ aestheticScore: 7, negativeAestheticScore: 2 },
    image: "i.png",
    strength: 0.5,
    resize: "fit",
    imageBackground: "#000000",
    mask: "m.png",
    invertMask: true,
    maskBlur: 4,
    maskGrow: 6,
    maskArea: "masked",
    maskContent: "fill",
    maskPadding: 16,
    extend: "left=64",
    ...{ ipAdapter: ["i", "j"], ipImage: ["k.png"], ipScale: [0.5, 1] },
    ...{ ipStart: [0.2], ipEnd: [0.8], ipEncoder: ["e"] },
    ...{ controlnet: ["c", "d"], controlImage: ["h.png"], controlScale: [0.5, 1] },
    ...{ controlStart: [0.1], controlEnd: [0.9], controlType: [3, 6] },
    controlPreprocess: ["canny"],
    prompt: "a house",
    negativePrompt: "dark",
    prompt2: "p",
    negativePrompt2: "n",
    compat: "a1111",
    promptSyntax: "comfyui",
    emphasis: "no_norm",
    longPrompts: true,
    clipSkip: 3,
    emptyNegative: "zeros",
    promptFile: "l.txt",
    style: "s",
    stylesPath: "s.csv",
    dynamicPrompts: true,
    wildcards: "w",
    seeds: [4n, 3n, 2n, 1n].map((below) => 2n ** 63n - below),
    seedIsRandom: false,
    wantLatents: true,
    rng: "cuda",
    noiseOrder: "batch",
    noiseBatch: 8,
    noiseIndex: 2,
    stepRng: "cpu",
    noiseSampler: "brownian",
    variationSeed: 9n,
    variationStrength: 0.25,
    etaNoiseSeedDelta: 31337,
    imageCount: 4,
    batchSize: 3,
    guidanceScale: 7.5,
    guidanceRescale: 0.7,
    guidanceStart: 0.2,
    guidanceEnd: 0.9,
    recipe: "lcm",
    stepCount: 30,
    width: 64,
    height: 96,
    scheduler: "euler_a",
    sigmas: "karras",
    timesteps: [999, 499],
    useKarrasSigmas: true,
    timestepSpacing: "trailing",
    timestepRounding: "nearest",
    firstSigma: "sqrt",
    hires: 1.5,
    hiresStrength: 0.3,
    hiresSteps: 12,
    hiresUpscaler: "lanczos",
    quality: "high",
    deepCache: "2,4@0.5",
    deepCacheThreshold: 0.25,
    deepCacheBranch: 1,
    freshDeep: false,
    crossAttentionGate: 12,
    eta: 0.5,
    sNoise: 1.5,
    model: "m",
    config: "c",
    vae: "v",
    taesd: "t",
    modelsDir: ["d"],
    predictionType: "v_prediction",
    rescaleBetasZeroSnr: true,
    loras: [{ file: "l.safetensors", scale: 0.8, textScale: 0.5 }],
    embeddings: [{ file: "a=b/e.safetensors", name: "sad" }],
    rankCount: 2,
    threadCount: 3,
    vaeTiling: false,
    device: "cpu",
    dtype: "bf16",
    shareGpu: true,
    cudaGraphs: false,
    transport: "nccl",
    attention: "own",
    fp16Accumulate: true,
    splitBatch: false,
    syncMode: "full_sync",
    extrapolateHalos: undefined,
    compressExchange: "int8",
    balance: "2:1",
    warmupSteps: 4,
    listSchedulers: true,
    plan: true,
    outPath: "o.webp",
    latentsPath: "l.safetensors",
    verbose: true,
    fromImage: "i.png",
    previewSteps: 5,
    previewProtocol: "sixel",
    grid: true,
    xyz: "steps=1,2",
    cells: false,
    metadata: false,
    quiet: false,
    json: true,
  };

  test("every flag, by = and by the next argument", () => {
    const pairs = Object.entries(values);
    const joined = parse(
      "a house",
      ...pairs.map(([name, value]) => `--${name}=${value}`),
      ...flags,
    );
    const spaced = parse(
      ...flags,
      ...pairs.flatMap(([name, value]) => [`--${name}`, value]),
      "a house",
    );
    expect(spaced).toEqual(joined);
    expect(joined).toEqual(everyOption);
  });

  test("lists of noise levels decide the steps, whatever an image says", () => {
    const recalled = { settings: { stepCount: 9, warmupSteps: 6, eta: 0.5 }, warnings: [] };
    const read = (sigmas: string) =>
      parseSampleOptions(parseArgs(["--sigmas", sigmas], sampleFlags), { recalled });
    const listed = { sigmas: [9, 3, 0], stepCount: undefined, warmupSteps: undefined, eta: 0.5 };
    expect(read("9,3,0")).toMatchObject(listed);
    expect(read("karras")).toMatchObject({ sigmas: "karras", stepCount: 9, warmupSteps: 6 });
    expect(resolve(["--sigmas", "9,3,0"]).request).toMatchObject({ stepCount: 2, warmupSteps: 2 });
    expect(sentence(() => resolve(["--timesteps", "9,3", "--steps", "3"]))).toBe(
      `--timesteps lists 2 steps, but ${steps} is 3: leave one of the two out.`,
    );
  });

  test("an explicit empty negative prompt is not an absent one", () => {
    expect(parse("--negative-prompt", "").negativePrompt).toBe("");
    expect(parse("--negative-prompt=").negativePrompt).toBe("");
    expect(resolve(["--negative-prompt="]).request.negativePrompt).toBe("");
    expect(resolve([]).request.negativePrompt).toBeUndefined();
  });

  test("halo extrapolation, by its old name too", () => {
    for (const flag of ["extrapolate-halos", "predict-borders"]) {
      expect(parse(`--${flag}`).extrapolateHalos).toBe(true);
      expect(parse(`--no-${flag}`).extrapolateHalos).toBe(false);
      expect(parse(`--${flag}=false`).extrapolateHalos).toBe(false);
    }
    expect(sentence(() => parse("--extrapolate-halos", "--no-predict-borders"))).toBe(
      "--extrapolate-halos and --no-predict-borders are the same flag: keep one of the two.",
    );
  });

  test.each([
    ["--taesd t", "--taesd is for previews: add --preview N"],
    ["--preview-protocol kitty", "--preview-protocol is for previews: add --preview N"],
    ["--wildcards w", "--wildcards is for __name__ in prompts: add --dynamic-prompts"],
    ["--styles s.csv", "--styles is for the rows that are named: add --style NAME"],
    ["--no-cells", "--no-cells is for sheets of axes: add --xyz AXES"],
  ])("%s alone, which would do nothing, is refused", (flags, sentence) => {
    expect(() => parse(...flags.split(" "))).toThrow(`${sentence}, or leave it out.`);
  });

  test("~ is the home folder in every path, and nowhere else", () => {
    const models = ["fromImage", "model", "config", "vae", "outPath", "image", "mask"] as const;
    const paths = ["promptFile", "wildcards", "latentsPath", ...models] as const;
    const all = settingKeys.filter((key) => settings[key].kind === "path");
    expect(new Set<string>(all)).toEqual(new Set([...paths, "stylesPath", "taesd", "refiner"]));
    const asked = (...flags: string[]) => parse("--dynamic-prompts", ...flags);
    for (const key of paths) {
      const name = settings[key].flag;
      expect(asked(`--${name}=~/a.safetensors`)[key]).toBe(join(homedir(), "a.safetensors"));
      expect(asked(`--${name}`, "~/a.safetensors")[key]).toBe(join(homedir(), "a.safetensors"));
      expect(asked(`--${name}=./~/a.safetensors`)[key]).toBe("./~/a.safetensors");
      expect(asked(`--${name}=~a.safetensors`)[key]).toBe("~a.safetensors");
    }
    expect(parse("--prompt=~/a house").prompt).toBe("~/a house");
    // The benches' flags come the same way.
    const flags = { prompts: { type: "string", valueHint: "FILE" } } as const;
    expect(normalizeFlags(["--prompts=~/p.txt"], flags)[0]).toBe(
      `--prompts=${join(homedir(), "p.txt")}`,
    );
  });

  test("a sampler by another program's name, with its sigmas", () => {
    const { request } = resolve(["--scheduler", "DPM++ 2M Karras"]);
    expect(request).toMatchObject({ scheduler: "dpmpp_2m", sigmas: "karras" });
    const { sigmas } = resolve(["--scheduler", "LMS Karras", "--sigmas", "beta"]).request;
    expect(sigmas).toBe("beta");
  });

  test("karras can be switched off for a model that has it on", () => {
    expect(parse("--no-use-karras-sigmas").useKarrasSigmas).toBe(false);
    expect(parse("--use-karras-sigmas=false").useKarrasSigmas).toBe(false);
    expect(parse("--no-rescale-betas-zero-snr").rescaleBetasZeroSnr).toBe(false);
    expect(parse("--no-zero-snr").rescaleBetasZeroSnr).toBe(false);
  });

  test("the last seed there is", () => {
    expect(parse("--seed", "9223372036854775807").seeds).toEqual([2n ** 63n - 1n]);
  });

  test("branches are split unless that is switched off", () => {
    expect(parse("--split-batch").splitBatch).toBe(true);
    expect(parse("--split-batch=false").splitBatch).toBe(false);
  });

  test("any prompt arrives as it was typed, by each way of giving it", () => {
    const text = fc.string({ unit: "binary", minLength: 1 }).filter((t) => t.trim() !== "");
    fc.assert(
      fc.property(text, (prompt) => {
        expect(parse(`--prompt=${prompt}`).prompt).toBe(prompt);
        expect(parse("--", prompt).prompt).toBe(prompt);
        if (!prompt.startsWith("--")) expect(parse("--prompt", prompt).prompt).toBe(prompt);
        if (!prompt.startsWith("-")) expect(parse(prompt).prompt).toBe(prompt);
      }),
    );
  }, 30_000);

  test("random seeds are seeds", () => {
    for (let i = 0; i < 20; i++) {
      const [seed = -1n] = parseSampleOptions(parseArgs([], sampleFlags)).seeds;
      expect(seed >= 0n && seed < 2n ** 32n).toBe(true);
    }
  });
});

describe("defaults", () => {
  test("of a full-size model", () => {
    const { request, warnings } = resolve(["a house"], fakeModel());
    expect(request).toMatchObject({
      prompt: "a house",
      guidanceScale: 5,
      stepCount: 50,
      width: 1024,
      height: 1024,
      scheduler: "euler",
      seeds: [42n],
      batchSize: 1,
      splitBatch: true,
      syncMode: "corrected_async_gn",
      warmupSteps: 4,
      wantLatents: false,
    });
    expect(warnings).toEqual([]);
  });

  test("a model's own go first, and flags go before them", () => {
    const defaults = { prompt: "p", width: 128, height: 160, steps: 25, guidanceScale: 4 };
    const model = fakeModel({ defaults, nativeSize: { width: 128, height: 128 } });
    expect(resolve([], model).request).toMatchObject({
      prompt: "p",
      width: 128,
      height: 160,
      stepCount: 25,
      guidanceScale: 4,
    });
    const flags = ["q", "--width=64", "--height=32", "--steps=2", "--guidance-scale=1.5"];
    expect(resolve(flags, model).request).toMatchObject({
      prompt: "q",
      width: 64,
      height: 32,
      stepCount: 2,
      guidanceScale: 1.5,
    });
  });

  test("warm-up is four steps, or all where there are fewer", () => {
    expect(resolve(["--steps", "2"]).request.warmupSteps).toBe(2);
    expect(resolve(["--steps", "2", "--warmup-steps", "0"]).request.warmupSteps).toBe(0);
  });

  test("each image has the next seed, and no batch is larger than the run", () => {
    const { request } = resolve(["--seed", "5", "--num-images", "3", "--batch-size", "8"]);
    expect(request).toMatchObject({ seeds: [5n, 6n, 7n], batchSize: 3 });
  });

  test("--save-latents asks for the latent", () => {
    expect(resolve(["--save-latents", "A.SafeTensors"]).request.wantLatents).toBe(true);
  });
});

describe("warnings", () => {
  test("a negative prompt without guidance", () => {
    expect(resolve(["--negative-prompt", "x", "--guidance-scale", "1"]).warnings).toEqual([
      "--negative-prompt is not used: it needs --guidance-scale above 1, not 1.",
    ]);
  });

  test("guidance rescale without guidance", () => {
    expect(resolve(["--guidance-rescale", ".5", "--guidance-scale", "1"]).warnings).toEqual([
      "--guidance-rescale is not used: it needs --guidance-scale above 1, not 1.",
    ]);
    expect(resolve(["--guidance-rescale", "0", "--guidance-scale", "1"]).warnings).toEqual([]);
  });

  test("a sampler of the model that is not there", () => {
    const { scheduler } = fakeModel();
    const className = "SASolverScheduler";
    const model = fakeModel({ scheduler: { ...scheduler, className } });
    const { request, warnings } = resolve(["p"], model);
    expect(request.scheduler).toBe("euler");
    expect(warnings).toEqual([
      "The model asks for SASolverScheduler, which this version lacks: euler takes its " +
        `place. --scheduler takes ${schedulers.join(", ")}.`,
    ]);
    expect(resolve(["p", "--scheduler", "ddim"], model).warnings).toEqual([]);
  });

  test("spacing and eta that the sampler does not follow", () => {
    const flags = ["p", "--timestep-spacing", "trailing", "--eta", ".5", "--scheduler"];
    expect(resolve([...flags, "lcm"]).warnings).toEqual([
      "--timestep-spacing is not used by the scheduler lcm.",
      "--eta is not used by the scheduler lcm.",
    ]);
    expect(resolve([...flags, "ddim"]).warnings).toEqual([]);
  });
});
