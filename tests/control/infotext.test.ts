/**
 * A1111's text in images: texts in the style of those on sharing sites are read, and written again
 * byte for byte where A1111 itself writes them so.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { recipeOfInfotext } from "../../src/metadata/from-infotext.ts";
import { isInfotext, parseInfotext, writeInfotext } from "../../src/metadata/infotext.ts";
import { a1111NameOf } from "../../src/metadata/sampler-names.ts";
import { hasSigmas } from "../../src/schedule.ts";
import { compatSigmas } from "../../src/settings/compat.ts";
import { schedulers } from "../../src/settings/names.ts";
import { seed, seedName } from "../support/seed.ts";

interface Case {
  text: string;
  prompt?: string;
  negative?: string;
  /** Some of the fields. */
  fields: Record<string, string>;
}

/** As A1111 and its forks write them. */
const canonical: Record<string, Case> = {
  "of its own documentation": {
    text: `girl with an artist's beret, determined, blue eyes, desert scene, ((eyeshadow)), detailed
Negative prompt: ugly, fat, obese, chubby, (((deformed))), [blurry], bad anatomy, (extra_limb)
Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x512, Model hash: 45dee52b`,
    negative: "ugly, fat, obese, chubby, (((deformed))), [blurry], bad anatomy, (extra_limb)",
    fields: { Sampler: "Euler a", "CFG scale": "7", "Model hash": "45dee52b" },
  },
  "of SDXL with a schedule type": {
    text: `cinematic photo of a lighthouse, 35mm, film grain
Negative prompt: cartoon, painting
Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5.5, Seed: 4294967295, Size: \
1216x832, Model hash: 31e35c80fc, Model: sd_xl_base_1.0, RNG: CPU, Version: v1.10.1`,
    fields: { "Schedule type": "Karras", Size: "1216x832", RNG: "CPU", Model: "sd_xl_base_1.0" },
  },
  "without a negative prompt": {
    text: `a red fox
Steps: 4, Sampler: LCM, CFG scale: 1.5, Seed: 1, Size: 1024x1024, Version: v1.9.4`,
    prompt: "a red fox",
    negative: "",
    fields: { Steps: "4" },
  },
  "with LoRAs and their hashes": {
    text: `<lora:detail-tweaker-xl:0.8> <lora:ink:1:0.5> a bridge
Negative prompt: blurry
Steps: 25, Sampler: Euler a, Schedule type: Automatic, CFG scale: 6, Seed: 77, Size: 832x1216, \
Model hash: 67ab2fd8ec, Model: ponyDiffusionV6XL_v6, Lora hashes: "detail-tweaker-xl: \
9c783c8ce46c, ink: d0f4ae5b9d11", Version: v1.10.0`,
    fields: { "Lora hashes": "detail-tweaker-xl: 9c783c8ce46c, ink: d0f4ae5b9d11" },
  },
  "with embeddings and a VAE": {
    text: `portrait
Negative prompt: negativeXL_D, lowres
Steps: 28, Sampler: DPM++ 2M SDE, Schedule type: Exponential, CFG scale: 7, Seed: 5, Size: \
1024x1024, Model hash: e6bb9ea85b, Model: sd_xl_base_1.0_0.9vae, VAE hash: 63aeecb90f, VAE: \
sdxl_vae.safetensors, TI hashes: "negativeXL_D: fff5d51ab655", Version: v1.8.0`,
    fields: { VAE: "sdxl_vae.safetensors", "TI hashes": "negativeXL_D: fff5d51ab655" },
  },
  "with hires fix": {
    text: `castle on a hill
Negative prompt: people
Steps: 20, Sampler: DPM++ SDE, Schedule type: Karras, CFG scale: 4, Seed: 123456789, Size: \
896x1152, Model hash: 0724518c6b, Model: juggernautXL_v8, Denoising strength: 0.35, Hires upscale: \
1.5, Hires steps: 10, Hires upscaler: 4x-UltraSharp, Version: v1.9.3`,
    fields: { "Hires upscale": "1.5", "Denoising strength": "0.35" },
  },
  "of several lines": {
    text: `masterpiece, 1girl,
BREAK
city, night, rain
Negative prompt: worst quality,
text, watermark
Steps: 24, Sampler: Euler, CFG scale: 7, Seed: 3, Size: 768x1344, Clip skip: 2, ENSD: 31337`,
    prompt: "masterpiece, 1girl,\nBREAK\ncity, night, rain",
    negative: "worst quality,\ntext, watermark",
    fields: { "Clip skip": "2", ENSD: "31337" },
  },
  "with texts in quotes": {
    text: `cat
Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 9, Size: 1024x1024, Hires prompt: \
"a cat, \\"sharp\\": yes\\nsecond line", Hires upscaler: Latent, Version: v1.7.0`,
    fields: { "Hires prompt": 'a cat, "sharp": yes\nsecond line' },
  },
  "of ADetailer and ControlNet": {
    text: `street musician
Negative prompt: bad hands
Steps: 35, Sampler: DPM++ 3M SDE, Schedule type: Karras, CFG scale: 5, Seed: 42, Size: 1152x896, \
ADetailer model: face_yolov8n.pt, ADetailer confidence: 0.3, ControlNet 0: "Module: canny, Model: \
diffusers_xl_canny_full [2b69fca4], Weight: 0.5", Version: v1.9.4`,
    fields: { "ADetailer confidence": "0.3" },
  },
  "of other scripts": {
    text: `\u732b, \u5bcc\u58eb\u5c71, caf\u00e9 \u{1f98a}
Negative prompt: \u4f4e\u54c1\u8cea
Steps: 22, Sampler: UniPC, CFG scale: 8, Seed: 2147483648, Size: \
1024x1024, Model: \u30a2\u30cb\u30e1XL`,
    fields: { Model: "\u30a2\u30cb\u30e1XL" },
  },
  "of Forge, with a module's name alone": {
    text: `neon sign that says OPEN
Steps: 20, Sampler: DDIM, Schedule type: SGM Uniform, CFG scale: 1, Seed: 10, Size: 1024x1024, \
Model hash: a0c4f1ab3c, Model: dreamshaperXL_lightning, RNG: NV, Tiling: True, Version: \
f2.0.1v1.10.1-previous-668-gfdf25a88`,
    fields: { Tiling: "True", Version: "f2.0.1v1.10.1-previous-668-gfdf25a88" },
  },
  "with a refiner and dynamic thresholding": {
    text: `an owl
Negative prompt: (worst quality:1.4), [sketch]
Steps: 40, Sampler: Restart, CFG scale: 12, Seed: 18446744073709551615, Size: 1024x1024, Model \
hash: 31e35c80fc, Model: sd_xl_base_1.0, Refiner: sd_xl_refiner_1.0 [7440042bbd], Refiner switch \
at: 0.8, Dynamic thresholding enabled: True, Mimic scale: 7, Version: v1.6.0`,
    fields: { Refiner: "sd_xl_refiner_1.0 [7440042bbd]", "Refiner switch at": "0.8" },
  },
};

describe("texts as A1111 writes them are written again", () => {
  test.each(Object.entries(canonical))("%s", (_, { text, prompt, negative, fields }) => {
    const parsed = parseInfotext(text);
    expect(Object.fromEntries(parsed.fields)).toMatchObject(fields);
    if (prompt !== undefined) expect(parsed.prompt).toBe(prompt);
    if (negative !== undefined) expect(parsed.negativePrompt).toBe(negative);
    expect(writeInfotext(parsed)).toBe(text);
  });
});

describe("texts of others are read by A1111's rules", () => {
  test("a prompt alone", () => {
    expect(parseInfotext("a cat: black, white")).toEqual({
      prompt: "a cat: black, white",
      negativePrompt: "",
      fields: [],
    });
    expect(isInfotext("a cat\nSteps: 1, Seed: 2")).toBe(false);
    expect(isInfotext("a cat\nSteps: 1, Seed: 2, Size: 1x1")).toBe(true);
  });

  test("lines of Windows, spaces around lines, quotes that never end", () => {
    const text = ' a cat \r\n Negative prompt:  dog\r\nSteps: 1, Seed:  2, Model: "x, Size: 8x8,';
    expect(parseInfotext(text)).toEqual({
      prompt: "a cat",
      negativePrompt: "dog",
      fields: [
        ["Steps", "1"],
        ["Seed", "2"],
        ["Model", '"x'],
        ["Size", "8x8"],
      ],
    });
  });

  test("Civitai's list of resources, which is not quoted", () => {
    const list = '[{"type":"checkpoint","modelVersionId":1}]';
    const { fields } = parseInfotext(`a\nSteps: 1, Seed: 2, Size: 8x8, Civitai resources: ${list}`);
    expect(fields.slice(0, 3).map(([name]) => name)).toEqual(["Steps", "Seed", "Size"]);
  });
});

test("a line of a million letters takes no time that anybody notices", () => {
  for (const piece of ["a", "a ", 'aa:"', 'aa: "\\', "aa:", ", :", " "]) {
    parseInfotext(piece.repeat(1e6 / piece.length));
  }
});

/** A1111's own expression, for short texts. */
const expression = /\s*([\p{L}\p{N}_][\p{L}\p{N}_ \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)/gu;

test(`fields are those that A1111's expression finds (${seedName})`, () => {
  const pieces = fc.constantFrom(...'a,b:  "\\-/'.split(""), "Steps: ", "ab", '": "', ", c1: ");
  fc.assert(
    fc.property(fc.array(pieces, { maxLength: 40 }), (parts) => {
      // The second and third field make it a line of fields in any case.
      const line = `${parts.join("")},q1: 1,q2: 2,q3: 3`;
      const found = [...line.matchAll(expression)].map(([, name, value]) => [name, value]);
      const isPlain = found.every(([, value]) => !value!.startsWith('"'));
      const { fields } = parseInfotext(`x\n${line}`);
      expect(fields.map(([name]) => name)).toEqual(found.map(([name]) => name!));
      if (isPlain) expect(fields.map(([, value]) => value)).toEqual(found.map(([, v]) => v!));
    }),
    { seed, numRuns: 2000 },
  );
});

test(`what is written is read (${seedName})`, () => {
  const word = fc.stringMatching(/^[a-z][a-z,:"\\ ]{0,20}[a-z]$/);
  const fields = fc.array(fc.tuple(fc.stringMatching(/^[A-Z][a-z]{2,8}$/), word), { minLength: 3 });
  fc.assert(
    fc.property(word, word, fields, (prompt, negativePrompt, list) => {
      fc.pre(list.every(([name, value]) => name !== value));
      const infotext = { prompt, negativePrompt, fields: list };
      expect(parseInfotext(writeInfotext(infotext))).toEqual(infotext);
    }),
    { seed },
  );
});

describe("samplers and schedules by A1111's names", () => {
  const kinds = [
    ...(["normal", "karras", "exponential", "beta", "sgm_uniform", "simple"] as const),
    ...(["ddim_uniform", "kl_optimal", "ays"] as const),
  ];

  test.each(schedulers)("%s is written and read again with each", (scheduler) => {
    for (const sigmas of hasSigmas(scheduler, "a1111") ? kinds : []) {
      const values: Readonly<Record<string, unknown>> = { sigmas, compat: "a1111" };
      const names = a1111NameOf(scheduler, (key) => values[key], "normal");
      const line = `Steps: 9, Sampler: ${names.sampler}, Schedule type: ${names.schedule}, Seed: 1`;
      const { settings, warnings } = recipeOfInfotext(`x\n${line}`);
      expect(warnings).toEqual([]);
      expect(settings.scheduler).toBe(scheduler);
      expect(settings.sigmas ?? compatSigmas("a1111", scheduler)).toBe(sigmas);
    }
    const values: Readonly<Record<string, unknown>> = { compat: "a1111" };
    const { sampler } = a1111NameOf(scheduler, (key) => values[key], "normal");
    const older = recipeOfInfotext(`x\nSteps: 9, Sampler: ${sampler}, CFG scale: 7, Seed: 1`);
    expect(older.settings.scheduler).toBe(scheduler);
  });
});
