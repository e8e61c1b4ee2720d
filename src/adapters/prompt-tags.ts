/**
 * LoRAs that a prompt names: `<lora:name:scale>` and `<lora:name:text:unet>`, as A1111 writes them,
 * also with names (`te=`, `unet=`). The tags are taken out before the prompt is tokenized.
 * Source: AUTOMATIC1111 modules/extra_networks.py, extensions-builtin/Lora/extra_networks_lora.py.
 */
import { BasedXLError, escaped } from "../errors.ts";
import { isLoraScale, type LoraChoice, loraScaleMax, parseLoraScale } from "../settings/lora.ts";

interface TaggedPrompt {
  /** The prompt without its tags. */
  text: string;
  loras: LoraChoice[];
  /** Tags that are not known and stay in the text, as they were written. */
  unknown: string[];
}

/**
 * Reads the tags of a prompt. `\<` is a plain "<". Throws "bad-option" for a LoRA's tag that cannot
 * be read; `what` names the prompt in that sentence.
 */
export function readPromptTags(prompt: string, what: string): TaggedPrompt {
  const loras: LoraChoice[] = [];
  const unknown: string[] = [];
  const text = prompt.replace(tagPattern, (tag, backslash: string, name: string, body: string) => {
    if (backslash !== "") return tag.slice(1);
    const kind = name.toLowerCase();
    if (loraTags.has(kind)) {
      loras.push(choiceOf(tag, body, what));
      return "";
    }
    if (!othersTags.has(kind)) unknown.push(tag);
    return tag;
  });
  return { text, loras, unknown };
}

/** The prompt with other names in its LoRAs' tags. */
export function withTagNames(prompt: string, nameOf: (file: string) => string): string {
  return prompt.replace(tagPattern, (tag, backslash: string, kind: string, body: string) => {
    if (backslash !== "" || !loraTags.has(kind.toLowerCase())) return tag;
    const [file = ""] = body.split(":", 1);
    const name = nameOf(file.trim());
    const start = tag.length - 1 - body.length;
    return name === file.trim() ? tag : tag.slice(0, start) + name + tag.slice(start + file.length);
  });
}

/** Whether a prompt has tags of LoRAs at all. */
export function hasLoraTags(prompt: string): boolean {
  return /<(?:lora|lyco):/i.test(prompt);
}

// --- internal ---

const loraTags: ReadonlySet<string> = new Set(["lora", "lyco"]);

/** A word, for SwarmUI also with something in brackets, then a colon. */
const tagPattern = /(\\?)<([a-z]+)(?:\[[^[\]<>]*\])?:([^<>]*)>/gi;

/** Tags that other parts of the program read. */
const othersTags: ReadonlySet<string> = new Set(["embed", "embedding"]);

function choiceOf(tag: string, body: string, what: string): LoraChoice {
  const fail = (why: string) =>
    new BasedXLError("bad-option", `The tag ${escaped(tag, 200)} in ${what} ${why}.`);
  const named = new Map<string, string>();
  const positional: string[] = [];
  for (const part of body.split(":")) {
    const [name = "", value] = part.split(/=(.*)/s, 2);
    if (value !== undefined && positional.length > 0) named.set(name.trim().toLowerCase(), value);
    else positional.push(part);
  }
  const [file = "", ...scales] = positional;
  if (file.trim() === "") throw fail("names no LoRA: it is written <lora:NAME:SCALE>");
  for (const name of named.keys()) {
    if (name === "te" || name === "unet") continue;
    throw fail(`has ${escaped(name, 20)}=, which is not supported: te= and unet= are`);
  }
  if (scales.length > 2) throw fail("has more than two scales, te and unet");
  const [first = "1", second] = scales;
  const text = named.get("te") ?? first;
  const unet = named.get("unet") ?? second ?? text;
  const [scale, textScale] = [unet, text].map(parseLoraScale);
  if (isLoraScale(scale) && isLoraScale(textScale)) {
    return { file: file.trim(), scale, textScale };
  }
  throw fail(`needs scales that are numbers from -${loraScaleMax} to ${loraScaleMax}`);
}
