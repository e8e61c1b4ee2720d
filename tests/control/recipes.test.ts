/**
 * --recipe: what it sets, what overrides it, and what it says.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { presetOf, recipeOf } from "../../src/adapters/recipes.ts";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { type GenerateRequest, planRequest } from "../../src/pipeline/request.ts";
import { recipeNames } from "../../src/settings/names.ts";
import { asFlag } from "../../src/settings/values.ts";

const model = await openModelFolder(goldenModel);
const fileNames = {
  "lightning-4": "sdxl_lightning_4step",
  "lightning-8": "sdxl_lightning_8step",
  "hyper-8": "Hyper-SDXL-8steps-lora",
  "dmd2-4": "dmd2_sdxl_4step_lora",
  lcm: "lcm-lora-sdxl",
  turbo: "sd_xl_turbo_1.0",
};

function plan(request: Partial<GenerateRequest>, rankCount = 1, name = "golden") {
  const size = { width: 64, height: 64, seeds: [1n] } as const;
  const all = { prompt: "a", ...size, ...request };
  return planRequest(all, { ...model, name }, rankCount, asFlag);
}

describe("a recipe", () => {
  test.each(recipeNames)("%s sets what its row says, and warns of nothing then", (recipe) => {
    const { settings, schedule, warnings } = plan({ recipe }, 1, fileNames[recipe]);
    const preset = presetOf(recipe);
    expect(recipeOf([fileNames[recipe]])?.title).toBe(preset.title);
    expect(settings).toMatchObject({
      stepCount: preset.stepCount,
      scheduler: preset.scheduler,
      guidanceScale: 1,
      syncMode: "corrected_async_gn",
    });
    expect(schedule.steps).toHaveLength(preset.stepCount);
    expect(schedule.timesteps[0]).toBe(999);
    expect(warnings).toEqual([]);
    // What it has set generates the same without it.
    const { seed, imageCount, ...rest } = settings;
    expect(plan({ ...rest, recipe: undefined }).schedule).toEqual(schedule);
  });

  test.each(recipeNames)("%s is in the documentation of the API", (recipe) => {
    const page = readFileSync(join(import.meta.dir, "../../docs/api.md"), "utf8");
    const { stepCount, scheduler, timesteps, timestepSpacing, guidanceScale } = presetOf(recipe);
    const listed = timesteps && `timesteps ${timesteps.join(", ")}`;
    const spacing = listed ?? timestepSpacing ?? "its own";
    const cells = [`\`${recipe}\``, stepCount, `\`${scheduler}\``, spacing, guidanceScale];
    expect(page).toContain(`| ${cells.join(" | ")} |\n`);
  });

  test("visits the timesteps that the model was distilled at", () => {
    const of = (recipe: (typeof recipeNames)[number]) => [...plan({ recipe }).schedule.timesteps];
    expect(of("dmd2-4")).toEqual([999, 749, 499, 249]);
    expect(of("lightning-4")).toEqual([999, 749, 499, 249]);
    expect(of("hyper-8")).toEqual([999, 874, 749, 624, 499, 374, 249, 124]);
  });

  test("gives way to every setting that the user gives", () => {
    const own = { stepCount: 6, guidanceScale: 1.5, timestepSpacing: "leading" } as const;
    const { settings } = plan({ recipe: "lightning-4", scheduler: "euler_a", ...own });
    expect(settings).toMatchObject({ ...own, scheduler: "euler_a" });
    const karras = plan({ recipe: "lightning-4", sigmas: "karras" });
    expect(karras.settings).toMatchObject({ sigmas: "karras", stepCount: 4 });
    expect(karras.settings.timestepSpacing).toBeUndefined();
    expect(plan({ recipe: "dmd2-4", stepCount: 2 }).schedule.timesteps).toHaveLength(2);
    const listed = plan({ recipe: "dmd2-4", timesteps: [999, 666, 333] });
    expect([...listed.schedule.timesteps]).toEqual([999, 666, 333]);
    expect(listed.settings.stepCount).toBe(3);
    expect(
      plan({ recipe: "dmd2-4", scheduler: "DPM++ 2M Karras" as "euler" }).settings,
    ).toMatchObject({ scheduler: "dpmpp_2m", sigmas: "karras", timesteps: undefined });
  });

  test("is not followed by the sigmas of the model's config", () => {
    const scheduler = { ...model.scheduler, sigmaKind: "karras" } as const;
    const request = { prompt: "a", recipe: "lightning-4", width: 64, height: 64 } as const;
    const { schedule } = planRequest(request, { ...model, scheduler }, 1);
    expect([...schedule.timesteps]).toEqual([999, 749, 499, 249]);
  });

  test("without its LoRA or model is warned of", () => {
    expect(plan({ recipe: "lightning-8" }).warnings).toEqual([
      "--recipe lightning-8 is for SDXL-Lightning, but neither a LoRA nor the model is named so: " +
        "others need more steps.",
    ]);
    const other = plan({ recipe: "hyper-8" }, 1, "sdxl_lightning_4step");
    expect(other.warnings[0]).toMatch(/^--recipe hyper-8 is for Hyper-SD, but neither/);
  });
});

describe("on several ranks", () => {
  const at = (request: Partial<GenerateRequest>) => plan(request, 2, "sdxl_lightning_4step");

  test("patches wait for each other, which is said", () => {
    const { settings, warnings } = at({ recipe: "lightning-4" });
    expect(settings.syncMode).toBe("full_sync");
    expect(warnings).toEqual([
      "--sync-mode is full_sync for the 4 steps of --recipe lightning-4: there are too few for " +
        "patches that are a step old.",
    ]);
  });

  test("unless the user says otherwise, there are many steps, or no recipe", () => {
    const given = at({ recipe: "lightning-4", syncMode: "stale_gn" });
    expect(given.settings.syncMode).toBe("stale_gn");
    expect(given.warnings).toEqual([]);
    const many = at({ recipe: "lightning-4", stepCount: 9 });
    expect(many.settings.syncMode).toBe("corrected_async_gn");
    expect(at({ stepCount: 4 }).settings.syncMode).toBe("corrected_async_gn");
  });
});
