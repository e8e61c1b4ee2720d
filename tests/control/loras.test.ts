/**
 * LoRAs of a request: scales as texts, tags in prompts, what is planned from both, recipes, and
 * what processes compare.
 */
import { describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describeLora, fingerprintOf } from "../../src/adapters/plan.ts";
import { readPromptTags } from "../../src/adapters/prompt-tags.ts";
import { describeRecipe, differencesFrom, recipeOf } from "../../src/adapters/recipes.ts";
import { reportLoras } from "../../src/adapters/report.ts";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { differenceOf, type ProcessFacts, settingsOf } from "../../src/distributed/settings.ts";
import { BasedXLError } from "../../src/errors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { type GenerateRequest, planRequest } from "../../src/pipeline/request.ts";
import { loraItem } from "../../src/settings/lora.ts";
import { refusal } from "../support/refusal.ts";
import { safetensorsBytes } from "../support/safetensors-bytes.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-loras-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
const model = await openModelFolder(goldenModel);

/** A LoRA of rank 2 for these modules of 128 x 128; gives its path. */
function writeLora(name: string, bases: string[], metadata: Record<string, string> = {}): string {
  const path = join(folder, `${name}.safetensors`);
  const tensors = bases.flatMap((base): [string, number[]][] => [
    [`${base}.lora_up.weight`, [128, 2]],
    [`${base}.lora_down.weight`, [2, 128]],
  ]);
  writeFileSync(path, safetensorsBytes(Object.fromEntries(tensors), metadata));
  return path;
}

const unetModule = "lora_unet_mid_block_attentions_0_proj_in";
const textModule = "lora_te2_text_model_encoder_layers_0_self_attn_q_proj";
const both = writeLora("both", [unetModule, textModule]);
const unetAlone = writeLora("unet alone", [unetModule]);

function plan(request: GenerateRequest) {
  const size = { width: 64, height: 64, stepCount: 2, scheduler: "euler" } as const;
  return planRequest(
    { prompt: "a house", seeds: [1n], ...size, ...request },
    model,
    1,
    (key) => key,
  );
}

describe("--lora", () => {
  test.each([
    ["a.safetensors", { file: "a.safetensors", scale: 1, textScale: 1 }],
    ["a:0.8", { file: "a", scale: 0.8, textScale: 0.8 }],
    ["a:.8:-1", { file: "a", scale: 0.8, textScale: -1 }],
    ["C:/a b:c/d.safetensors:1e-1", { file: "C:/a b:c/d.safetensors", scale: 0.1, textScale: 0.1 }],
    ["a:1:2:3", { file: "a:1", scale: 2, textScale: 3 }],
    ["a:one", { file: "a:one", scale: 1, textScale: 1 }],
    ["0.5", { file: "0.5", scale: 1, textScale: 1 }],
    ["a:", { file: "a:", scale: 1, textScale: 1 }],
  ])("%s", (text, expected) => {
    expect(loraItem.read(text)).toEqual(expected);
  });

  test("in JSON: a text, or an object with names of its own", () => {
    expect(loraItem.fromJson("a:0.5")).toEqual({ file: "a", scale: 0.5, textScale: 0.5 });
    const object = { file: "a", scale: 2, text_scale: 0 };
    expect(loraItem.fromJson(object)).toEqual({ file: "a", scale: 2, textScale: 0 });
    for (const wrong of [
      null,
      3,
      {},
      { file: "" },
      { file: "a", scale: "1" },
      { file: "a", x: 1 },
    ]) {
      expect(loraItem.accepts(loraItem.fromJson(wrong))).toBe(false);
    }
  });
});

describe("tags", () => {
  const read = (prompt: string) => readPromptTags(prompt, "--prompt");

  test.each([
    ["a <lora:x:0.8> b", "a  b", [{ file: "x", scale: 0.8, textScale: 0.8 }]],
    ["<lora:x>", "", [{ file: "x", scale: 1, textScale: 1 }]],
    ["<LORA:sub/x y:1:0.5>", "", [{ file: "sub/x y", scale: 0.5, textScale: 1 }]],
    ["<lora:x:te=0.2>", "", [{ file: "x", scale: 0.2, textScale: 0.2 }]],
    ["<lora:x:unet=0.2>", "", [{ file: "x", scale: 0.2, textScale: 1 }]],
    ["<lora:x:1:unet=0.2:te=0>", "", [{ file: "x", scale: 0.2, textScale: 0 }]],
    ["<lyco:x:2>", "", [{ file: "x", scale: 2, textScale: 2 }]],
    ["\\<lora:x:2> a < b", "<lora:x:2> a < b", []],
    ["<embed:x> (a:1.2)", "<embed:x> (a:1.2)", []],
  ])("%s", (prompt, text, loras) => {
    expect(read(prompt)).toEqual({ text, loras, unknown: [] });
  });

  test("that are not known stay, and are named", () => {
    const prompt = "a <hypernet:x:1> <segment[2]:face>";
    const unknown = ["<hypernet:x:1>", "<segment[2]:face>"];
    expect(read(prompt)).toEqual({ text: prompt, loras: [], unknown });
    const { warnings, batches } = plan({ prompt: "a <hypernet:x:1>" });
    expect(batches[0]!.images[0]!.prompt).toBe("a <hypernet:x:1>");
    expect(warnings).toEqual([
      "prompt has the tag <hypernet:x:1>, which is not known and stays in the text; LoRAs are " +
        "<lora:NAME:SCALE>.",
    ]);
  });

  test.each(["prompt2", "negativePrompt", "negativePrompt2"] as const)("of %s are text", (key) => {
    const { warnings, loras } = plan({ negativePrompt: "", [key]: "<lora:x:1>", seeds: [1n, 2n] });
    expect(loras).toEqual([]);
    expect(warnings).toEqual([
      expect.stringContaining(`${key} has a tag of a LoRA, which is read as text`),
    ]);
  });

  test.each([
    ["<lora:>", "names no LoRA"],
    ["<lora: :1>", "names no LoRA"],
    ["<lora:x:much>", "needs scales that are numbers from -100 to 100"],
    ["<lora:x:101>", "needs scales that are numbers from -100 to 100"],
    ["<lora:x:1:1:8>", "has more than two scales"],
    ["<lora:x:1:dyn=8>", "has dyn=, which is not supported: te= and unet= are"],
  ])("%s is refused", async (tag, why) => {
    const message = await refusal(() => read(`a ${tag}`), "bad-option");
    expect(message).toStartWith(`The tag ${tag} in --prompt ${why}`);
  });

  test("any prompt is read or refused in one sentence", () => {
    const part = fc.oneof(
      fc.constantFrom("<lora:", ">", "<", ":", "=", "te=", "unet=", "1", "-0.5", "\\", "x", " "),
      fc.string({ unit: "binary", maxLength: 5 }),
    );
    const prompts = fc.array(part, { maxLength: 20 }).map((parts) => parts.join(""));
    fc.assert(
      fc.property(prompts, (prompt) => {
        try {
          const { text, loras } = read(prompt);
          expect(text.length).toBeLessThanOrEqual(prompt.length);
          expect(loras.every(loraItem.accepts)).toBe(true);
        } catch (error) {
          if (!(error instanceof BasedXLError)) throw error;
          expect(error.message).toMatch(/^The tag [^\p{Cc}]+ in --prompt [^\p{Cc}]+\.$/u);
        }
      }),
      { numRuns: 30_000 },
    );
  }, 60_000);
});

const facts: ProcessFacts = {
  version: "1",
  model,
  rankCount: 1,
  gpu: {
    ...{ dtype: "f16", share: false, fp16Accumulate: false, transport: "auto" },
    ...{ graphs: true, library: null },
  },
  seedIsRandom: false,
};

describe("a request", () => {
  test("adds tags to its LoRAs, and takes them out of the prompt", () => {
    const { batches, settings, loras } = plan({
      prompt: `a <lora:${unetAlone}:0.25> house`,
      loras: [{ file: both, scale: 0.5 }],
    });
    const [image] = batches[0]!.images;
    expect(image!.prompt).toBe("a  house");
    expect(settings.prompt).toContain("<lora:");
    expect(loras.map(describeLora)).toEqual([
      "both at 0.5: changes 1 weight of the UNet and 1 weight of the text encoders",
      "unet alone at 0.25: changes 1 weight of the UNet",
    ]);
    expect(image!.loras).toEqual(loras);
  });

  test("adds the scales of a file that it names twice, and drops what changes nothing", () => {
    const twice = { file: both, scale: 0.5, textScale: 0 };
    expect(plan({ loras: [twice, twice] }).loras).toMatchObject([{ scale: 1, textScale: 0 }]);
    expect(plan({ loras: [twice, { ...twice, scale: -0.5 }] }).loras).toEqual([]);
    const tenths = [0.1, 0.2].map((scale) => ({ file: both, scale }));
    expect(plan({ loras: tenths }).loras).toMatchObject([{ scale: 0.3, textScale: 0.3 }]);
    const unused = plan({
      prompt: ["a house", `a house <lora:${both}:0>`],
      seeds: [1n, 2n],
      loras: [{ file: unetAlone, scale: 0, textScale: 1 }],
    });
    expect(unused.loras).toEqual([]);
    expect(unused.warnings).toEqual([
      "The LoRA unet alone changes nothing: it has weights of the UNet alone, and the scales are " +
        "0 for the UNet and 1 for the text encoders.",
      "The LoRA both changes nothing: the scales are 0 for the UNet and 0 for the text encoders.",
    ]);
  });

  test("has at most 64 LoRAs for an image, tags included", async () => {
    const loras = Array.from({ length: 64 }, (_, index) => ({
      file: writeLora(`of many ${index}`, [unetModule]),
    }));
    expect(plan({ loras }).loras).toHaveLength(64);
    const prompt = `a <lora:${both}:1>`;
    expect(await refusal(() => plan({ prompt, loras }), "bad-option")).toBe(
      "An image takes 64 LoRAs at most, those of tags in its prompt included, not 65.",
    );
  });

  test("computes images with the same LoRAs together, others apart", () => {
    const prompt = ["a", `b <lora:${both}:1>`, `c <lora:${both}:1>`, `d <lora:${both}:2>`];
    const { batches } = plan({ prompt, seeds: [1n, 2n, 3n, 4n], batchSize: 4 });
    expect(batches.map(({ images }) => images.length)).toEqual([1, 2, 1]);
  });

  test("warns of tensors that change nothing", () => {
    const path = writeLora("mixed", [unetModule, "lora_unet_x", "lora_unet_y"]);
    expect(plan({ loras: [{ file: path }] }).warnings).toEqual([
      "4 of 6 tensors of the LoRA mixed change nothing of this model and are ignored: " +
        "lora_unet_x.lora_up.weight, lora_unet_x.lora_down.weight, lora_unet_y.lora_up.weight " +
        "and 1 more.",
    ]);
  });

  test("reads a file again once it has changed", () => {
    const path = writeLora("changing", [unetModule]);
    const before = plan({ loras: [{ file: path }] }).loras[0]!.file;
    expect(plan({ loras: [{ file: path }] }).loras[0]!.file).toBe(before);
    writeLora("changing", [unetModule, textModule]);
    expect(plan({ loras: [{ file: path }] }).loras[0]!.file.targets).toHaveLength(2);
  });

  test("is compared between processes by what its files hold and their scales", () => {
    const print = (file: string, scale: number) =>
      fingerprintOf(plan({ loras: [{ file, scale }] }).loras);
    const copy = writeLora("a copy", [unetModule, textModule]);
    expect(print(copy, 1)).toBe(print(both, 1));
    expect(print(copy, 0.5)).not.toBe(print(both, 1));
    expect(print(unetAlone, 1)).not.toBe(print(both, 1));
    const settings = (file: string) => settingsOf(plan({ loras: [{ file }] }), facts);
    expect(differenceOf(settings(both), settings(copy), 1)).toBeNull();
    expect(differenceOf(settings(both), settings(unetAlone), 1)).toStartWith(
      "Process 1 and process 0 differ in --lora (",
    );
    // Another epoch of the same training: only the numbers differ.
    const later = writeLora("later", [unetModule, textModule]);
    const bytes = readFileSync(later);
    bytes.fill(1, 8 + Number(bytes.readBigUInt64LE()));
    writeFileSync(later, bytes);
    expect(differenceOf(settings(both), settings(later), 1)).toStartWith(
      "Process 1 and process 0 differ in --lora (",
    );
  });
});

describe("a file", () => {
  test("has the hash that sites know it by: of its tensors alone", async () => {
    const { loras } = plan({ loras: [{ file: both }] });
    const bytes = readFileSync(both);
    const tensors = bytes.subarray(8 + Number(bytes.readBigUInt64LE()));
    const hash = new Bun.CryptoHasher("sha256").update(tensors).digest("hex").slice(0, 12);
    expect(await reportLoras(loras)).toEqual([
      { name: "both", path: both, scale: 1, text_scale: 1, weights: 2, hash },
    ]);
  });

  test("of PEFT has its alpha in the configuration beside it", () => {
    const path = "mid_block.attentions.0.proj_in";
    const peft = join(folder, "peft");
    mkdirSync(peft);
    const file = join(peft, "adapter_model.safetensors");
    const base = `base_model.model.${path}`;
    const shapes = { [`${base}.lora_B.weight`]: [128, 2], [`${base}.lora_A.weight`]: [2, 128] };
    writeFileSync(file, safetensorsBytes(shapes));
    const scale = () => plan({ loras: [{ file }] }).loras[0]!.file.targets[0]!.scale;
    expect(scale()).toBe(1);
    writeFileSync(join(peft, "adapter_config.json"), JSON.stringify({ r: 2, lora_alpha: 8 }));
    // The file itself has not changed, and was matched before.
    utimesSync(file, 1, 1);
    expect(scale()).toBe(4);
  });
});

describe("recipes", () => {
  test.each([
    ["dmd2_sdxl_4step_lora_fp16", "DMD2: 4 steps of lcm at timesteps 999, 749, 499, 249"],
    [
      "sdxl_lightning_8step_lora",
      "SDXL-Lightning: 8 steps of euler, trailing spacing, no guidance",
    ],
    ["Hyper-SDXL-8steps-CFG-lora", "Hyper-SD with guidance: 8 steps of ddim or euler, trailing"],
    ["Hyper-SDXL-1step-lora", "Hyper-SD in one step: 1 step of tcd at timestep 800"],
    ["Hyper-SDXL-4steps-lora", "Hyper-SD: 4 steps of ddim or tcd, trailing spacing, no guidance"],
    ["pcm_sdxl_normalcfg_8step_converted", "PCM with guidance: 8 steps of tcd or ddim, trailing"],
    ["pcm_sdxl_smallcfg_2step_converted", "PCM: 2 steps of tcd or ddim, trailing spacing"],
    ["lcm-lora-sdxl", "LCM: 2 to 8 steps of lcm"],
    ["TCD-SDXL-LoRA", "TCD: 2 to 20 steps of tcd"],
    ["sd_xl_turbo_lora_v1-64dim", "SDXL Turbo: 1 to 4 steps of euler_a, trailing spacing"],
  ])("%s", (name, expected) => {
    expect(describeRecipe(recipeOf([name])!)).toStartWith(expected);
  });

  test("of other names there is none", () => {
    for (const name of [
      "anime",
      "turbocharged_car",
      "ballcm",
      "hyperdetail",
      "dmdx",
      "pcmag",
      "lightning_bolts",
    ]) {
      expect(recipeOf([name])).toBeNull();
    }
  });

  test("of what a header calls the file", () => {
    const path = writeLora("renamed", [unetModule], {
      ss_output_name: "sdxl_lightning_4step_lora",
    });
    const { warnings, loras } = plan({ loras: [{ file: path }], guidanceScale: 5 });
    expect(describeLora(loras[0]!)).toEndWith(
      "; made for SDXL-Lightning: 4 steps of euler, " + "trailing spacing, no guidance (scale 1)",
    );
    expect(warnings).toEqual([
      "The LoRA renamed is made for other settings than this request's 2 steps, leading spacing, " +
        "guidance 5: SDXL-Lightning: 4 steps of euler, trailing spacing, no guidance (scale 1).",
    ]);
  });

  test("say nothing where the request follows them", () => {
    const recipe = recipeOf(["sdxl_lightning_4step_lora"])!;
    const right = { stepCount: 4, timestepSpacing: "trailing", guidanceScale: 0 } as const;
    expect(differencesFrom(recipe, { ...right, scheduler: "euler" })).toEqual([]);
    expect(differencesFrom(recipe, { ...right, scheduler: "ddim" })).toEqual(["ddim"]);
  });
});
