/**
 * The prompts of a command's images: those of a file, in styles, with every choice made by the
 * image's seed. What comes out are plain texts, one per image where they differ.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { badOption, escaped } from "../errors.ts";
import { readLimited } from "../limited-read.ts";
import { imageCountMax } from "../native/abi.ts";
import { choose } from "../prompt/dynamic.ts";
import { parseStyles, type Style, styled } from "../prompt/styles.ts";
import { suggestion } from "../terminal/flags.ts";
import type { SampleOptions } from "./options.ts";
import { firstSeedMax } from "./setting.ts";

/** The options with their prompts. Throws "bad-option" for files and names that are not there. */
export function withPrompts(options: SampleOptions): SampleOptions {
  const { promptFile, style, dynamicPrompts } = options;
  if (promptFile === undefined && style === undefined && !dynamicPrompts) return options;
  if (promptFile !== undefined && options.prompt !== undefined) {
    throw badOption("--prompt-file and a prompt contradict each other: keep one of the two.");
  }
  const given = options.prompt as string | undefined;
  const lines = promptFile === undefined ? [given] : promptsOf(promptFile);
  const imageCount = lines.length * options.imageCount;
  if (imageCount > imageCountMax) {
    throw badOption(`--prompt-file asks for ${imageCount} images: ${imageCountMax} are possible.`);
  }
  const first = options.seeds[0]!;
  if (first > firstSeedMax(imageCount)) {
    throw badOption(`--seed ${first} leaves no room for the seeds of ${imageCount} images.`);
  }
  const seeds = Array.from({ length: imageCount }, (_, index) => first + BigInt(index));
  const styles = style === undefined ? [] : stylesOf(style, options.stylesPath);
  const withStyles = (text: string | undefined, of: (each: Style) => string) =>
    styles.reduce<string | undefined>((all, each) => {
      return of(each) === "" && all === undefined ? all : styled(all ?? "", of(each));
    }, text);
  const linesOf = wildcardsOf(options.wildcards);
  const final = (text: string | undefined, seed: bigint) =>
    dynamicPrompts && text !== undefined ? choose(text, { seed, linesOf }) : text;
  const prompts = seeds.map((seed, index) => {
    const line = lines[Math.floor(index / options.imageCount)];
    return final(
      withStyles(line, ({ prompt }) => prompt),
      seed,
    );
  });
  const ofCommand = options.negativePrompt as string | undefined;
  const negative = withStyles(ofCommand, (each) => each.negativePrompt);
  // Another draw than the prompt's, so that equal choices are independent.
  const negatives = seeds.map((seed) => final(negative, seed + 2n ** 63n));
  return {
    ...options,
    ...{ imageCount, seeds },
    prompt: oneOrAll(prompts),
    negativePrompt: oneOrAll(negatives),
  };
}

// --- internal ---

/** Lists of styles and words have up to a few MB. */
const textBytesMax = 2 ** 26;

/** One text for all images, or one for each; there is none where the model brings its own. */
function oneOrAll(texts: readonly (string | undefined)[]): string | readonly string[] | undefined {
  const known = texts.filter((text) => text !== undefined);
  return new Set(texts).size === 1 ? known[0] : known;
}

function read(flag: string, path: string): string {
  try {
    return readLimited(path, textBytesMax).toString();
  } catch (error) {
    const { code = "unreadable" } = error as NodeJS.ErrnoException;
    throw badOption(`${flag} ${escaped(path, 300)} cannot be read (${code}).`);
  }
}

function promptsOf(path: string): string[] {
  const lines = read("--prompt-file", path).split(/\r?\n/);
  const prompts = lines.map((line) => line.trim()).filter((line) => line !== "");
  if (prompts.length > 0) return prompts;
  throw badOption(`--prompt-file ${escaped(path, 300)} has no prompts: it has one per line.`);
}

/** The styles that are named, with commas between. */
function stylesOf(names: string, path: string | undefined): Style[] {
  if (path === undefined) throw badOption("--style names a row of a file: give it as --styles.");
  const all = parseStyles(read("--styles", path));
  if (all === null) {
    throw badOption(`--styles ${escaped(path, 300)} has no columns name and prompt.`);
  }
  const wanted = all.has(names) ? [names] : names.split(",").map((name) => name.trim());
  return wanted.map((name) => {
    const style = all.get(name);
    if (style !== undefined) return style;
    const near = suggestion(name, all.keys());
    const shown = escaped(JSON.stringify(name), 300);
    throw badOption(`--styles ${escaped(path, 300)} has no style ${shown}.${near}`);
  });
}

/** Names are those of files in the folder: a prompt must not name a path. */
function wildcardsOf(folder: string | undefined): (name: string) => readonly string[] {
  const known = new Map<string, readonly string[]>();
  const files = folder === undefined ? [] : listed(folder);
  return (name) => {
    const lines = known.get(name);
    if (lines !== undefined) return lines;
    if (folder === undefined) {
      throw badOption(
        `The prompt asks for __${escaped(name, 60)}__: --wildcards names its folder.`,
      );
    }
    const file = files.find((each) => each.replaceAll("\\", "/") === `${name}.txt`);
    if (file === undefined) {
      const near = suggestion(
        name,
        files.map((each) => each.replace(/\.txt$/, "")),
      );
      throw badOption(
        `--wildcards ${escaped(folder, 300)} has no ${escaped(name, 60)}.txt.${near}`,
      );
    }
    const text = read("--wildcards", join(folder, file));
    const found = text.split(/\r?\n/).map((line) => line.trim());
    const choices = found.filter((line) => line !== "" && !line.startsWith("#"));
    known.set(name, choices);
    return choices;
  };
}

function listed(folder: string): string[] {
  try {
    return readdirSync(folder, { recursive: true, encoding: "utf8" });
  } catch {
    throw badOption(`--wildcards ${escaped(folder, 300)} is not a folder that can be read.`);
  }
}
