/**
 * LoRAs that make few steps do: which steps, sampler, spacing and guidance each was trained for,
 * recognised by the file's name or by its header. Settings are changed for them only where the
 * user names a recipe.
 */
import type { RecipeName, Scheduler, TimestepSpacing } from "../settings/names.ts";

interface Recipe {
  title: string;
  /** Of the file's name, or of what its header calls it; a group holds the number of steps. */
  match: RegExp;
  /** Those of the name, or of the recipe where the name does not say how many. */
  steps: readonly [min: number, max: number];
  /** The sampler in words, and which of this program's will do. */
  sampler: string;
  schedulers: readonly [Scheduler, ...Scheduler[]];
  spacing: TimestepSpacing | null;
  /** Those of a run with as many steps. */
  timesteps?: readonly number[];
  /** 1 is none. */
  guidance: readonly [min: number, max: number];
  /** What else it wants. */
  note?: string;
  /** Under which names users ask for it, each with its steps. */
  names?: Readonly<Partial<Record<RecipeName, number>>>;
}

/** What a named recipe sets. */
export interface Preset {
  name: RecipeName;
  title: string;
  stepCount: number;
  scheduler: Scheduler;
  timestepSpacing: TimestepSpacing | undefined;
  timesteps: readonly number[] | undefined;
  guidanceScale: number;
}

export interface RecipeRequest {
  stepCount: number;
  scheduler: Scheduler;
  /** null where the sampler has one of its own. */
  timestepSpacing: TimestepSpacing | null;
  guidanceScale: number;
}

/** The recipe of a file; null for all others. The first of `names` that is known counts. */
export function recipeOf(names: readonly string[]): Recipe | null {
  for (const name of names) {
    for (const recipe of recipes) {
      const match = recipe.match.exec(name.slice(0, nameLengthMax));
      if (match === null) continue;
      const steps = Number(match[1] ?? match[2] ?? Number.NaN);
      return Number.isInteger(steps) ? { ...recipe, steps: [steps, steps] } : recipe;
    }
  }
  return null;
}

/** What the recipe of that name sets: its first sampler and least guidance. */
export function presetOf(name: RecipeName): Preset {
  const recipe = recipes.find(({ names = {} }) => names[name] !== undefined)!;
  return {
    name,
    title: recipe.title,
    stepCount: recipe.names![name]!,
    scheduler: recipe.schedulers[0],
    timestepSpacing: recipe.spacing ?? undefined,
    timesteps: recipe.timesteps,
    guidanceScale: recipe.guidance[0],
  };
}

/** What the recipe wants, as in "SDXL-Lightning: 4 steps of euler, trailing, no guidance". */
export function describeRecipe(recipe: Recipe): string {
  const { title, steps, sampler, spacing, guidance, note } = recipe;
  const parts = [
    `${rangeOf(steps)} ${steps[1] === 1 ? "step" : "steps"} of ${sampler}`,
    ...(spacing === null ? [] : [`${spacing} spacing`]),
    guidance[1] <= 1 ? "no guidance (scale 1)" : `guidance ${rangeOf(guidance)}`,
    ...(note === undefined ? [] : [note]),
  ];
  return `${title}: ${parts.join(", ")}`;
}

/** What of the request the recipe does not want, as in "50 steps"; empty where all is right. */
export function differencesFrom(recipe: Recipe, request: RecipeRequest): string[] {
  const { stepCount, scheduler, timestepSpacing, guidanceScale } = request;
  const guidance = Math.max(1, guidanceScale);
  const differences: string[] = [];
  if (!isIn(stepCount, recipe.steps)) {
    differences.push(stepCount === 1 ? "1 step" : `${stepCount} steps`);
  }
  if (!recipe.schedulers.includes(scheduler)) differences.push(scheduler);
  if (recipe.spacing !== null && timestepSpacing !== recipe.spacing) {
    differences.push(`${timestepSpacing ?? "the sampler's own"} spacing`);
  }
  if (!isIn(guidance, recipe.guidance)) {
    differences.push(guidance === 1 ? "no guidance" : `guidance ${guidanceScale}`);
  }
  return differences;
}

// --- internal ---

const nameLengthMax = 300;
const none = [1, 1] as const;

/**
 * Sources: model cards of ByteDance/SDXL-Lightning, ByteDance/Hyper-SD, tianweiy/DMD2,
 * latent-consistency/lcm-lora-sdxl, h1t/TCD-SDXL-LoRA, stabilityai/sdxl-turbo and
 * wangfuyun/PCM_Weights; Fooocus modules/async_worker.py; krita-ai-diffusion samplers.json.
 */
const recipes: readonly Recipe[] = [
  {
    title: "DMD2",
    match: /dmd2?[-_ ].*?(\d+)[-_ ]?step|dmd2/i,
    steps: [4, 4],
    sampler: "lcm at timesteps 999, 749, 499, 249",
    schedulers: ["lcm"],
    spacing: null,
    timesteps: [999, 749, 499, 249],
    guidance: none,
    names: { "dmd2-4": 4 },
  },
  {
    title: "SDXL-Lightning",
    match: /(?:xl[-_ ]?)?lightning.*?(\d+)[-_ ]?step|(\d+)[-_ ]?step.*lightning|xl[-_ ]?lightning/i,
    steps: [2, 8],
    sampler: "euler",
    schedulers: ["euler"],
    spacing: "trailing",
    guidance: none,
    names: { "lightning-4": 4, "lightning-8": 8 },
  },
  {
    title: "Hyper-SD with guidance",
    match: /hyper[-_ ]?(?:sd).*?(\d+)[-_ ]?steps?[-_ ]*cfg/i,
    steps: [8, 12],
    sampler: "ddim or euler",
    schedulers: ["ddim", "euler", "tcd"],
    spacing: "trailing",
    guidance: [3.5, 8],
  },
  {
    title: "Hyper-SD in one step",
    match: /hyper[-_ ]?(?:sd).*?\b(1)[-_ ]?step/i,
    steps: none,
    sampler: "tcd at timestep 800",
    schedulers: ["tcd"],
    spacing: null,
    guidance: none,
  },
  {
    title: "Hyper-SD",
    match: /hyper[-_ ]?(?:sd).*?(\d+)[-_ ]?step|hyper[-_ ]?sd/i,
    steps: [1, 8],
    sampler: "ddim or tcd",
    schedulers: ["ddim", "tcd"],
    spacing: "trailing",
    guidance: none,
    names: { "hyper-8": 8 },
  },
  {
    title: "PCM with guidance",
    match: /\bpcm[-_ ].*normal[-_ ]?cfg.*?(\d+)[-_ ]?step/i,
    steps: [4, 16],
    sampler: "tcd or ddim",
    schedulers: ["tcd", "ddim"],
    spacing: "trailing",
    guidance: [5, 8],
  },
  {
    title: "PCM",
    match: /\bpcm[-_ ].*?(\d+)[-_ ]?step|\bpcm[-_ ]/i,
    steps: [2, 16],
    sampler: "tcd or ddim",
    schedulers: ["tcd", "ddim"],
    spacing: "trailing",
    guidance: none,
  },
  {
    title: "LCM",
    match: /(?:^|[-_ ./])lcm(?:$|[-_ .])/i,
    steps: [2, 8],
    sampler: "lcm",
    schedulers: ["lcm"],
    spacing: null,
    guidance: [1, 2],
    names: { lcm: 4 },
  },
  {
    title: "TCD",
    match: /(?:^|[-_ ./])tcd(?:$|[-_ .])/i,
    steps: [2, 20],
    sampler: "tcd",
    schedulers: ["tcd"],
    spacing: null,
    guidance: none,
  },
  {
    title: "SDXL Turbo",
    match: /(?:sd[-_ ]?)?xl[-_ ]?turbo|turbo[-_ ].*xl/i,
    steps: [1, 4],
    sampler: "euler_a",
    schedulers: ["euler_a", "euler"],
    spacing: "trailing",
    guidance: none,
    names: { turbo: 4 },
  },
];

function isIn(value: number, [min, max]: readonly [number, number]): boolean {
  return value >= min && value <= max;
}

function rangeOf([min, max]: readonly [number, number]): string {
  return min === max ? `${min}` : `${min} to ${max}`;
}
