/**
 * The LoRAs of each image of a request: those of the setting, then those of tags in its prompt,
 * which are taken out of it.
 */
import { type LoraPlanner, type PlannedLora, warningsOf } from "../adapters/plan.ts";
import { hasLoraTags, readPromptTags } from "../adapters/prompt-tags.ts";
import type { RecipeRequest } from "../adapters/recipes.ts";
import { escaped } from "../errors.ts";
import type { LoraChoice } from "../settings/lora.ts";
import { asProperty, type Naming } from "../settings/values.ts";

interface Prompts {
  prompt: string;
  prompt2: string | undefined;
  negativePrompt: string | null;
  negativePrompt2: string | undefined;
}

interface WithLoras<Image> {
  images: (Image & { loras: readonly PlannedLora[] })[];
  /** One sentence each, without repetition. */
  warnings: string[];
}

/**
 * Plans the LoRAs of all images. Throws "bad-option" for a tag that cannot be read, and what
 * `LoraPlanner.plan` throws.
 */
export function withLoras<Image extends Prompts>(
  images: readonly Image[],
  choices: readonly LoraChoice[],
  planner: LoraPlanner,
  request: RecipeRequest,
  naming: Naming = asProperty,
): WithLoras<Image> {
  const warnings = new Set<string>();
  const planned = images.map((image) => {
    const { text, loras, unknown } = readPromptTags(image.prompt, naming("prompt"));
    for (const tag of unknown) {
      warnings.add(
        `${naming("prompt")} has the tag ${escaped(tag, 100)}, which is not known and stays in \
the text; LoRAs are <lora:NAME:SCALE>.`,
      );
    }
    for (const key of ["prompt2", "negativePrompt", "negativePrompt2"] as const) {
      if (!hasLoraTags(image[key] ?? "")) continue;
      warnings.add(
        `${naming(key)} has a tag of a LoRA, which is read as text: LoRAs change the whole image, \
and their tags belong in ${naming("prompt")}.`,
      );
    }
    return { ...image, prompt: text, loras: planner.plan([...choices, ...loras]) };
  });
  for (const warning of planner.idleWarnings()) warnings.add(warning);
  for (const lora of planner.all()) {
    for (const warning of warningsOf(lora, request)) warnings.add(warning);
  }
  return { images: planned, warnings: [...warnings] };
}
