/**
 * Settings (rows of ../table.ts): what the image shows: prompts, how they are read, and guidance.
 */
import { compatLines, compatNames, emphases, emptyNegatives, promptSyntaxes } from "../names.ts";
import type { Setting } from "../setting.ts";

export const imageSettings = {
  prompt: {
    kind: "text",
    flag: "prompt",
    group: "Image",
    hint: "TEXT",
    help: "What the image shows. Default: the model's own prompt, if it has one.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "prompt",
  },
  negativePrompt: {
    kind: "text",
    flag: "negative-prompt",
    group: "Image",
    hint: "TEXT",
    help:
      'What the image should not show. "" is encoded as an empty text; without this flag the ' +
      "model's config decides (SDXL: zeros). Default: none.",
    emptyAllowed: true,
    needsGuidance: true,
    scope: "request",
    processes: "same",
    json: "negative_prompt",
  },
  prompt2: {
    kind: "text",
    flag: "prompt-2",
    group: "Image",
    hint: "TEXT",
    help: "What the second text encoder reads. Default: the prompt.",
    scope: "request",
    processes: "same",
    json: "prompt_2",
  },
  negativePrompt2: {
    kind: "text",
    flag: "negative-prompt-2",
    group: "Image",
    hint: "TEXT",
    help: "The same of the negative prompt. Default: the negative prompt.",
    needsGuidance: true,
    scope: "request",
    processes: "same",
    json: "negative_prompt_2",
  },
  compat: {
    kind: "choice",
    flag: "compat",
    names: compatNames,
    default: "diffusers",
    group: "Image",
    hint: "NAME",
    help:
      "The tool whose image is wanted: {names}. It decides what follows where the flag itself is " +
      "not given, and formulas and noise levels of samplers (docs/prompts.md). Default: " +
      `diffusers.\n${compatLines}`,
    scope: "request",
    processes: "same",
    json: "compat",
  },
  promptSyntax: {
    kind: "choice",
    flag: "prompt-syntax",
    names: promptSyntaxes,
    group: "Image",
    hint: "NAME",
    help:
      "How prompts are read: plain as diffusers does; a1111 with (weights:1.2), [less], BREAK " +
      "and chunks of 75 tokens; comfyui with its (weights:1.2) and chunks. Default: as --compat " +
      "says, plain.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "prompt_syntax",
  },
  emphasis: {
    kind: "choice",
    flag: "emphasis",
    names: emphases,
    group: "Image",
    hint: "NAME",
    help:
      "How --prompt-syntax a1111 applies weights: original restores the mean of each chunk, " +
      "no_norm does not, ignore reads brackets without weighing, none takes them as text. " +
      "Default: original, as A1111.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "emphasis",
  },
  longPrompts: {
    kind: "boolean",
    flag: "long-prompts",
    default: false,
    group: "Image",
    help:
      "Read plain prompts of more than 75 tokens in chunks of 75, as the other syntaxes always " +
      "do. Default: the rest is left out, with a warning.",
    scope: "request",
    processes: "same",
    json: "long_prompts",
  },
  clipSkip: {
    kind: "whole",
    flag: "clip-skip",
    min: 1,
    max: 12,
    default: 2,
    group: "Image",
    hint: "N",
    help:
      "The text encoders' layer to read, counted from the end, {range}: 2 is the one that SDXL " +
      "was trained with, and 1 is read as 2. diffusers' clip_skip K is N = K + 2, and with " +
      "--prompt-syntax plain holds for the prompt alone, as there; a1111 reads 2 whatever N is. " +
      "Default: 2.",
    scope: "request",
    processes: "same",
    json: "clip_skip",
  },
  emptyNegative: {
    kind: "choice",
    flag: "empty-negative",
    names: emptyNegatives,
    group: "Image",
    hint: "NAME",
    help:
      "What an empty or absent negative prompt is: zeros (as in A1111), encode (the empty text, " +
      'as in ComfyUI), or auto: "" is encoded, and an absent one is what the config of the model ' +
      "says, zeros for SDXL. Default: as --compat says, auto.",
    modelDefault: true,
    needsGuidance: true,
    scope: "request",
    processes: "same",
    json: "empty_negative",
  },
  promptFile: {
    kind: "path",
    flag: "prompt-file",
    names: "file",
    group: "Image",
    hint: "FILE",
    help:
      "A text with a prompt per line, in the place of one prompt; --num-images are of each. " +
      "Default: none.",
    scope: "command",
    processes: "own",
    json: null,
  },
  style: {
    kind: "text",
    flag: "style",
    group: "Image",
    hint: "NAME",
    help: "Styles of --styles for the prompts, with commas between. Default: none.",
    scope: "command",
    processes: "own",
    json: null,
  },
  stylesPath: {
    kind: "path",
    flag: "styles",
    names: "file",
    extension: ".csv",
    group: "Image",
    hint: "FILE",
    help: "A1111's styles.csv, with columns name, prompt and negative_prompt. Default: none.",
    scope: "command",
    processes: "own",
    json: null,
  },
  dynamicPrompts: {
    kind: "boolean",
    flag: "dynamic-prompts",
    default: false,
    group: "Image",
    help:
      "Choose in prompts by the seed: {red|blue}, {0.3::red|blue}, {2$$a|b|c}, and __name__ for " +
      "a line of name.txt in --wildcards. Default: prompts are read as they are.",
    scope: "command",
    processes: "own",
    json: null,
  },
  wildcards: {
    kind: "path",
    flag: "wildcards",
    names: "folder",
    group: "Image",
    hint: "FOLDER",
    help: "Where --dynamic-prompts finds the files of __name__. Default: none.",
    scope: "command",
    processes: "own",
    json: null,
  },
  guidanceScale: {
    kind: "number",
    flag: "guidance-scale",
    min: 0,
    max: 100,
    group: "Image",
    hint: "X",
    help:
      "How closely to follow the prompt, {range}; 1 and below is no guidance, in half the time, " +
      "except for samplers of CFG++. Default: the model's own, else 5.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "guidance_scale",
  },
  guidanceRescale: {
    kind: "number",
    flag: "guidance-rescale",
    min: 0,
    max: 1,
    default: 0,
    group: "Image",
    hint: "X",
    help:
      "Scale the guided noise prediction back towards the deviation of the prompt's, {range}: " +
      "against overexposure by guidance (arXiv 2305.08891, which takes 0.7). Default: 0.",
    needsGuidance: true,
    scope: "request",
    processes: "same",
    json: "guidance_rescale",
  },
  guidanceStart: {
    kind: "number",
    flag: "guidance-start",
    min: 0,
    max: 1,
    default: 0,
    group: "Image",
    hint: "X",
    help:
      "Fraction of the steps before guidance begins, {range}: earlier steps compute the prompt " +
      "alone, in half the time. Default: 0.",
    needsGuidance: true,
    scope: "request",
    processes: "same",
    json: "guidance_start",
  },
  guidanceEnd: {
    kind: "number",
    flag: "guidance-end",
    min: 0,
    max: 1,
    default: 1,
    group: "Image",
    hint: "X",
    help: "Fraction of the steps after which guidance ends, {range}. Default: 1.",
    needsGuidance: true,
    scope: "request",
    processes: "same",
    json: "guidance_end",
  },
  fromImage: {
    kind: "path",
    flag: "from-image",
    names: "file",
    group: "Image",
    hint: "FILE",
    help:
      "Take the settings that an image carries, of BasedXL (the same bits again), A1111 and its " +
      "kin, ComfyUI, SwarmUI or Fooocus; other flags override them. What cannot be repeated is a " +
      "warning. Default: none.",
    scope: "command",
    processes: "own",
    json: null,
  },
} as const satisfies Readonly<Record<string, Setting>>;
