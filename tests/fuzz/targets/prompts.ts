/**
 * Prompts in every syntax, with the tags, choices and styles in them; and parameters as text.
 */
import { readPromptTags } from "../../../src/adapters/prompt-tags.ts";
import { isInfotext, parseInfotext } from "../../../src/metadata/infotext.ts";
import { parseA1111 } from "../../../src/prompt/a1111.ts";
import { combinedPrompts } from "../../../src/prompt/combined.ts";
import { parseComfyui } from "../../../src/prompt/comfyui.ts";
import { choose } from "../../../src/prompt/dynamic.ts";
import { parseStyles } from "../../../src/prompt/styles.ts";
import { turnsOf } from "../../../src/prompt/turns.ts";
import { parseAxes } from "../../../src/sheets.ts";
import { mutateText } from "../mutate.ts";
import { target } from "../target.ts";

const prompts = [
  "a (red:1.2) [house:0.5] ((tall)) BREAK on the grass",
  "[a:b:0.25] and [cat|dog|[x::3]] AND a night :0.5",
  "a {red|2::blue|{tall|small} green} __animals__ 2$$, $${a|b|c}",
  "embedding:style <lora:name:0.5:0.7> a \\(house\\) [[[x]]]",
  "(a:1e3) (b:-.5) (c:nan) (d:inf)",
];
const pieces = [
  ..."()[]{}:|<>,.$_-\\0123456789aA ",
  ...["BREAK", " AND ", "__", "$$", "::", ":1.5)", "<lora:", "[a:b:", "1e999", "((((", "[[[["],
];
const lines = (name: string) => (name === "animals" ? ["cat", "{a|__animals__}", "dog"] : []);

export const promptTarget = target(
  "prompts",
  (random) => mutateText(random, random.pick(prompts), pieces),
  (text) => {
    parseA1111(text);
    parseComfyui(text);
    for (const part of combinedPrompts(text)) turnsOf(part.text, 20);
    choose(text, { seed: 7n, linesOf: lines });
    readPromptTags(text, "prompt");
  },
);

const infotexts = [
  [
    "a house\nNegative prompt: blurry\nSteps: 20, Sampler: DPM++ 2M, CFG scale: 7, Seed: 4",
    ', Size: 64x64, Lora hashes: "a: 1, b: 2", Version: v1.10',
  ].join(""),
  'Steps: 1, Hashes: {"model": "abc", "lora:x": "12"}, Template: "a, b: \\"c\\""',
];
const parts = [...pieces, "\n", "Steps: ", ', A: "', '"', "{", "}", "Negative prompt: "];
const styles = 'name,prompt,negative_prompt\n"a","{prompt}, ""x""",blurry\nb,,\n';
const axes = ["steps=10-30(+5);seed=1,2", "cfg=1-9[4];prompt=a,b", 'sampler="x, y"'];

export const textTarget = target(
  "texts",
  (random) => {
    const which = random.below(3);
    const text = [random.pick(infotexts), styles, random.pick(axes)][which]!;
    return { which, text: mutateText(random, text, parts) };
  },
  ({ which, text }) => {
    if (which === 0) return void (isInfotext(text) && parseInfotext(text));
    return which === 1 ? parseStyles(text) : parseAxes(text);
  },
);
