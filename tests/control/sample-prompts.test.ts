/**
 * Prompts of files, styles and choices by the seed, before anything is planned.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { choose, closings } from "../../src/prompt/dynamic.ts";
import { parseStyles, styled } from "../../src/prompt/styles.ts";
import { parseSampleOptions } from "../../src/settings/options.ts";
import { withPrompts } from "../../src/settings/sample-prompts.ts";
import { refusal } from "../support/refusal.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-prompts-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function fileOf(name: string, text: string): string {
  mkdirSync(join(folder, name, ".."), { recursive: true });
  writeFileSync(join(folder, name), text);
  return join(folder, name);
}

const optionsOf = (flags: Record<string, string | boolean>, prompt?: string) =>
  withPrompts(parseSampleOptions({ _: prompt === undefined ? [] : [prompt], ...flags }));

const noLines = (name: string) => {
  throw new Error(name);
};
const chosen = (text: string, seed = 1n) => choose(text, { seed, linesOf: noLines });

describe("choices", () => {
  test("are made by the seed, each option about as often as its weight says", () => {
    const count = (text: string, wanted: string) =>
      Array.from({ length: 2000 }, (_, seed) => chosen(text, BigInt(seed))).filter(
        (each) => each === wanted,
      ).length;
    expect(chosen("{a|b|c}", 5n)).toBe(chosen("{a|b|c}", 5n));
    // Five standard deviations of 2000 draws.
    expect(Math.abs(count("{a|b}", "a") - 1000)).toBeLessThan(112);
    expect(Math.abs(count("{3::a|b}", "a") - 1500)).toBeLessThan(97);
    expect(count("{0::a|b}", "a")).toBe(0);
  });

  test("may be several, and stand in each other", () => {
    expect(chosen("{2$$a|b}").split(", ").sort()).toEqual(["a", "b"]);
    expect(chosen("{5$$a}")).toBe("a");
    expect(["x 1 y", "x 2 y"]).toContain(chosen("x {{1|2}} y"));
    expect(chosen("\\{a|b\\} {c} {d} {")).toBe("{a|b} c d {");
  });

  test("close where a search from each brace finds it", () => {
    const closing = (text: string, start: number) => {
      let depth = 0;
      for (let at = start; at < text.length; at++) {
        if (text[at] === "\\") at += 1;
        else if (text[at] === "{") depth += 1;
        else if (text[at] === "}" && --depth === 0) return at;
      }
      return undefined;
    };
    const unit = fc.constantFrom("{", "}", "\\", "|", "a");
    const text = fc.string({ unit, maxLength: 60 });
    const escapes = (before: string) => /\\*$/.exec(before)![0].length % 2 === 1;
    const property = fc.property(text, (each) => {
      const found = closings(each);
      for (let at = 0; at < each.length; at++) {
        const isOpen = each[at] === "{" && !escapes(each.slice(0, at));
        expect(found.get(at)).toBe(isOpen ? closing(each, at) : undefined);
      }
    });
    fc.assert(property, { numRuns: 500 });
  });

  test("of any number of braces are read in one pass", () => {
    // A search from each brace would not end within the time of a test.
    const braces = 2 ** 18;
    expect(chosen("{".repeat(braces))).toHaveLength(braces);
  });

  test("leave any other text as it is", () => {
    const text = fc.string({ unit: "binary", maxLength: 40 });
    const isPlain = (each: string) => !/[{}\\]|__/.test(each);
    fc.assert(fc.property(text.filter(isPlain), (each) => void expect(chosen(each)).toBe(each)));
    fc.assert(fc.property(text, (each) => void chosen(each.replaceAll("__", "_"))));
  });

  test("of lines come from files of the folder alone", async () => {
    fileOf("wild/colour.txt", "# colours\nred\n\n");
    fileOf("wild/deep/place.txt", "__colour__ house\n");
    fileOf("secret.txt", "secret\n");
    const flags = { "dynamic-prompts": true, wildcards: join(folder, "wild"), seed: "1" };
    expect(optionsOf(flags, "a __deep/place__").prompt).toBe("a red house");
    for (const name of ["../secret", "colours"]) {
      const options = () => optionsOf(flags, `a __${name}__`);
      if (name.startsWith(".")) expect(options().prompt).toBe("a __../secret__");
      else expect(await refusal(options, "bad-option")).toContain("has no colours.txt.");
    }
    const without = () => optionsOf({ "dynamic-prompts": true }, "__colour__");
    expect(await refusal(without, "bad-option")).toContain("--wildcards names its folder");
    expect(optionsOf({}, "{a|b} __c__").prompt).toBe("{a|b} __c__");
  });

  test("differ between images", () => {
    const flags = { "dynamic-prompts": true, "num-images": "20", seed: "3" };
    const { prompt, seeds } = optionsOf(flags, "{a|b|c}");
    expect(prompt).toHaveLength(20);
    expect(new Set(prompt).size).toBe(3);
    expect(prompt![4]).toBe(chosen("{a|b|c}", seeds[4]!));
  });
});

describe("a file of prompts", () => {
  test("has one per line, each for as many images as are asked for", async () => {
    const file = fileOf("lines.txt", "a cat\r\n\n a dog \n");
    const options = optionsOf({ "prompt-file": file, "num-images": "2", seed: "7" });
    expect(options.prompt).toEqual(["a cat", "a cat", "a dog", "a dog"]);
    expect(options.seeds).toEqual([7n, 8n, 9n, 10n]);
    expect(options.imageCount).toBe(4);
    const both = () => optionsOf({ "prompt-file": file }, "a cat");
    expect(await refusal(both, "bad-option")).toContain("contradict each other");
    const many = () => optionsOf({ "prompt-file": file, "num-images": "40" });
    expect(await refusal(many, "bad-option")).toContain("asks for 80 images: 64 are possible");
    const empty = () => optionsOf({ "prompt-file": fileOf("empty.txt", "\n") });
    expect(await refusal(empty, "bad-option")).toContain("has no prompts");
    const absent = () => optionsOf({ "prompt-file": join(folder, "none.txt") });
    expect(await refusal(absent, "bad-option")).toContain("cannot be read (ENOENT)");
  });
});

describe("styles", () => {
  const file = fileOf(
    "styles.csv",
    '\uFEFFname,prompt,negative_prompt\nink,"ink, ""old""\ndrawing",colour\n' +
      "photo,photo of {prompt},\n",
  );

  test("stand around or behind the prompt, as in A1111", () => {
    expect(styled("a cat", "photo of {prompt}, $&")).toBe("photo of a cat, $&");
    expect([styled(" a cat ", "ink"), styled("", "ink")]).toEqual(["a cat, ink", "ink"]);
    const options = optionsOf({ style: "photo, ink", styles: file, seed: "1" }, "a cat");
    expect(options.prompt).toBe('photo of a cat, ink, "old"\ndrawing');
    expect(options.negativePrompt).toBe("colour");
    expect(optionsOf({ style: "photo", styles: file }, "a").negativePrompt).toBeUndefined();
  });

  test("that are not there are refused", async () => {
    const asked = (flags: Record<string, string>) => refusal(() => optionsOf(flags), "bad-option");
    expect(await asked({ style: "inc", styles: file })).toContain('has no style "inc".');
    expect(await asked({ style: "ink" })).toContain("give it as --styles");
    expect(await asked({ style: "ink", styles: fileOf("odd.csv", "a,b\n") })).toContain(
      "has no columns name and prompt",
    );
  });

  test("are read from any text", () => {
    const text = fc.string({ unit: fc.constantFrom(...'a,"\n\r '.split("")), maxLength: 30 });
    fc.assert(fc.property(text, (each) => void parseStyles(`name,prompt\n${each}`)));
    expect(parseStyles("")).toBeNull();
  });
});
