/**
 * --compat: what each tool decides, that flags go before it, and that the documentation has the
 * table.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { type GenerateRequest, planRequest } from "../../src/pipeline/request.ts";
import { compatKeys, compatLines, compatNames, withCompat } from "../../src/settings/compat.ts";
import { settings } from "../../src/settings/table.ts";
import { asFlag, checkSetting } from "../../src/settings/values.ts";

const model = await openModelFolder(goldenModel);

function plan(request: Partial<GenerateRequest>) {
  const size = { width: 64, height: 64, seeds: [1n], stepCount: 4 } as const;
  return planRequest({ prompt: "a", ...size, ...request }, model, 1, asFlag);
}

const rows = compatNames.map((compat) => withCompat({ compat }));

describe("the table", () => {
  test("has values of its settings, which have no other default", () => {
    for (const row of rows) {
      for (const key of compatKeys) {
        expect(checkSetting(key, row[key])).toBe(row[key]);
        expect(settings[key]).not.toHaveProperty("default");
        expect(settings[key]).toHaveProperty("modelDefault", true);
      }
    }
  });

  test("is in --help and in the documentation", () => {
    const page = readFileSync(join(import.meta.dir, "../../docs/prompts.md"), "utf8");
    for (const key of compatKeys) {
      const values = rows.map((row) => row[key]);
      const cells = [`--${settings[key].flag}`, ...values].map((each) => ` \`${each}\` `);
      expect(page).toContain(`|${cells.join("|")}|\n`);
      const line = new RegExp(`^${settings[key].flag} +${values.join(" +")}$`, "m");
      expect(compatLines).toMatch(line);
    }
  });
});

describe("a tool", () => {
  test.each(compatNames)("%s decides what is not given, and nothing else", (compat) => {
    const { settings: planned } = plan({ compat });
    const row = withCompat({ compat });
    for (const key of compatKeys) expect(planned[key]).toBe(row[key]);
    const syntax = { promptSyntax: "plain", emphasis: "no_norm" } as const;
    const own = { ...syntax, emptyNegative: "auto", rng: "cuda" } as const;
    expect(plan({ compat, ...own }).settings).toMatchObject(own);
  });

  test("brings a sampler and its noise levels", () => {
    const of = (request: Partial<GenerateRequest>) => {
      const { scheduler, sigmas } = plan(request).settings;
      return [scheduler, sigmas];
    };
    expect(of({})).toEqual([plan({}).schedule.name, undefined]);
    expect(of({ compat: "comfyui" })).toEqual(["euler", "normal"]);
    expect(of({ compat: "a1111" })).toEqual(["dpmpp_2m", "karras"]);
    expect(of({ compat: "a1111", scheduler: "euler_a" })).toEqual(["euler_a", "normal"]);
    expect(of({ compat: "a1111", scheduler: "dpmpp_2m_sde" })).toEqual([
      "dpmpp_2m_sde",
      "exponential",
    ]);
    const named = { scheduler: "DPM++ 2M Exponential" as "dpmpp_2m" };
    expect(of({ compat: "a1111", ...named })).toEqual(["dpmpp_2m", "exponential"]);
    expect(of({ compat: "comfyui", scheduler: "dpmpp_2m", sigmas: "karras" })).toEqual([
      "dpmpp_2m",
      "karras",
    ]);
    expect(of({ compat: "comfyui", recipe: "turbo" })).toEqual(["euler_a", "sgm_uniform"]);
    expect(plan({ compat: "comfyui", recipe: "turbo" }).warnings).toHaveLength(1);
    expect(of({ compat: "a1111", useKarrasSigmas: true })).toEqual(["dpmpp_2m", undefined]);
  });

  test("warns of nothing that the user did not ask for", () => {
    const { warnings } = plan({ compat: "a1111", guidanceScale: 1, scheduler: "euler" });
    expect(warnings).toEqual([]);
    const given = plan({ emptyNegative: "zeros", guidanceScale: 1 });
    expect(given.warnings).toEqual([
      "--empty-negative is not used: it needs --guidance-scale above 1, not 1.",
    ]);
  });
});

describe("A1111's emphasis", () => {
  const of = (emphasis: "original" | "none" | "ignore", prompt: string) => {
    const { batches, warnings } = plan({ compat: "a1111", emphasis, prompt });
    return { tokens: batches[0]!.images[0]!.tokens.prompts[0]!, warnings };
  };

  test("ignore reads brackets without weighing, none takes them as text", () => {
    const plainText = of("original", "a red circle");
    expect(of("original", "a (red:1.4) circle").tokens.weights).toBeDefined();
    expect(of("ignore", "a (red:1.4) circle")).toEqual(plainText);
    const escaped = of("original", "a \\(red:1.4\\) circle").tokens;
    const { tokens, warnings } = of("none", "a (red:1.4) circle");
    expect([...tokens.ids2]).toEqual([...escaped.ids2]);
    expect(tokens.weights).toBeUndefined();
    expect(warnings).toEqual([]);
    const cut = of("ignore", "a BREAK b").tokens;
    expect(cut.ids2.length).toBe(154);
    expect(of("none", "a BREAK b").tokens.ids2.length).toBe(77);
  });
});
