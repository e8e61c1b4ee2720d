/**
 * The form of the next job. Everything in it comes from the capability document.
 */

import { capabilities } from "../server/capabilities.ts";
import { submit, waitingCount } from "../server/jobs.ts";
import { rememberStart } from "../server/live.ts";
import type { Capabilities, ListedSetting, Settings } from "../server/wire.ts";
import { follow } from "../stage/followed.ts";
import { attempt } from "../ui/messages.tsx";
import { ControlFields, hintOfForm, needsControlNet } from "./control.tsx";
import {
  AnyField,
  AnyFieldOf,
  ChoiceField,
  Labelled,
  Options,
  Segments,
  SliderField,
} from "./field.tsx";
import {
  chooseRecipe,
  clearForm,
  give,
  given,
  infoOf,
  model,
  modelId,
  readsWeights,
  requestOfForm,
  settingValue,
  vaeName,
} from "./form.ts";
import { ImagePromptFields, imagePromptsOfForm, needsIpAdapter } from "./image-prompt.tsx";
import { LorasField } from "./loras.tsx";
import { PromptBox } from "./prompt.tsx";
import { needsRefiner, RefinerFields, refinerOfForm } from "./refiner.tsx";
import { needsSecondPass, SecondPassFields } from "./second-pass.tsx";
import { SeedField } from "./seed.tsx";
import { SizeField } from "./size.tsx";
import { inputOfForm, needsSource, SourceFields } from "./source.tsx";

/** Queues a job and shows it. */
export async function generate(): Promise<void> {
  await attempt(async () => {
    const { request, ...others } = requestOfForm();
    const used = usedSettings(request);
    const refiner = refinerOfForm() ?? undefined;
    const files = {
      ...{ ...(await inputOfForm()), ...(await hintOfForm()), ...(await imagePromptsOfForm()) },
    };
    const job = await submit({ request: used, ...others, refiner, ...files });
    rememberStart(job.id);
    follow(job.id);
    // Where the form is below it, what comes would not be seen.
    scrollTo({ top: 0 });
  });
}

export function Compose() {
  return (
    <form
      class="compose"
      aria-label="Settings"
      onSubmit={(event) => {
        event.preventDefault();
        void generate();
      }}
    >
      <div class="fields">
        <PromptBox
          name="prompt"
          label="Prompt"
          placeholder={model.value?.defaults.prompt ?? "What the image shows"}
        />
        <PromptBox
          name="negative_prompt"
          label="Negative prompt"
          placeholder="What it should not show"
        />
        {readsWeights.value && <p class="hint">Weights are read as A1111 reads them.</p>}
        <ModelField />
        <VaeField />
        <SizeField />
        <SamplingFields />
        <div class="pair seed-and-count">
          <SeedField />
          <CountField />
        </div>
        <LorasField />
        <SecondPassFields />
        <SourceFields />
        <ControlFields />
        <ImagePromptFields />
        <RefinerFields />
        <RankFields />
        <MoreFields />
      </div>
      <div class="generate">
        <button type="submit" class="primary" disabled={capabilities.value === null}>
          Generate
          {waitingCount.value > 0 && <small>{waitingCount.value} waiting</small>}
          <kbd>Ctrl ⏎</kbd>
        </button>
      </div>
    </form>
  );
}

// --- internal ---

/** Settings of what is not asked for: the server would refuse them. */
function isUseless(setting: ListedSetting): boolean {
  return missing.some((isMissing) => isMissing(setting));
}

const missing = [needsSource, needsSecondPass, needsControlNet, needsIpAdapter, needsRefiner];

function usedSettings(settings: Settings): Settings {
  const used = Object.entries(settings).filter(([name]) => {
    const info = infoOf(name);
    return info === undefined || !isUseless(info);
  });
  return Object.fromEntries(used);
}

function ModelField() {
  const models = capabilities.value?.models ?? [];
  if (models.length < 2) return null;
  return (
    <div class="field">
      <label for="field-model">Model</label>
      <select
        id="field-model"
        value={model.value?.id ?? ""}
        onChange={({ currentTarget }) => (modelId.value = currentTarget.value)}
      >
        {models.map(({ id, name }) => (
          <option key={id} value={id}>
            {name}
          </option>
        ))}
      </select>
    </div>
  );
}

function VaeField() {
  const vaes = capabilities.value?.vaes ?? [];
  if (vaes.length === 0) return null;
  return (
    <div class="field">
      <label for="field-vae">VAE</label>
      <select
        id="field-vae"
        value={vaeName.value ?? ""}
        onChange={({ currentTarget }) => (vaeName.value = currentTarget.value || null)}
      >
        <option value="">The model's</option>
        <Options names={vaes.map(({ name }) => name)} />
      </select>
    </div>
  );
}

function SamplingFields() {
  const scheduler = settingValue("scheduler");
  return (
    <>
      <RecipeField />
      <div class="pair">
        <SliderField name="num_inference_steps" label="Steps" min={1} max={80} step={1} />
        <SliderField name="guidance_scale" label="Guidance" min={1} max={15} step={0.5} />
      </div>
      <div class="pair">
        <ChoiceField
          name="scheduler"
          label="Sampler"
          unset={given.value.scheduler || !scheduler ? "The model's" : `Default: ${scheduler}`}
        />
        <ChoiceField name="sigmas" label="Spacing" unset="The sampler's" />
      </div>
      <QualityField />
    </>
  );
}

function RecipeField() {
  const recipes = capabilities.value?.recipes ?? [];
  return (
    <Labelled name="recipe" label="Recipe">
      <select
        id="field-recipe"
        value={String(given.value.recipe ?? "")}
        onChange={({ currentTarget }) => chooseRecipe(currentTarget.value || undefined)}
      >
        <option value="">None</option>
        {recipes.map(({ name, title, steps }) => (
          <option key={name} value={name}>
            {title} ({steps} steps)
          </option>
        ))}
      </select>
    </Labelled>
  );
}

function QualityField() {
  const info = infoOf("quality");
  return (
    <fieldset class="field">
      <legend>Quality</legend>
      <Segments
        name="quality"
        values={info?.names ?? []}
        chosen={settingValue("quality")}
        textOf={(name) => name}
        onChoose={(name) => give("quality", name === info?.default ? undefined : name)}
      />
    </fieldset>
  );
}

function CountField() {
  const max = capabilities.value?.limits.images ?? 1;
  return (
    <div class="field">
      <label for="field-num_images">Images</label>
      <input
        id="field-num_images"
        type="number"
        {...{ min: 1, max, value: Number(given.value.num_images ?? 1) }}
        onChange={({ currentTarget }) =>
          give("num_images", Number(currentTarget.value) || undefined)
        }
      />
    </div>
  );
}

function RankFields() {
  const ranks = capabilities.value?.ranks;
  if (!ranks || ranks.count < 2) return null;
  return (
    <fieldset class="section">
      <legend>{ranksText(ranks)}</legend>
      <div class="pair">
        <ChoiceField name="sync_mode" label="Sync mode" />
        <AnyFieldOf name="warmup_steps" />
      </div>
    </fieldset>
  );
}

/** `share` is "4", or "2x2" for two ranks on each of two images. */
function ranksText({ count, share }: Capabilities["ranks"]): string {
  const [each, images] = share.split("x");
  if (images === undefined) return `${count} ranks on every image`;
  return `${each} of ${count} ranks on every image, ${images} images side by side`;
}

/** Settings that have no field of their own above. */
function MoreFields() {
  const settings = (capabilities.value?.settings ?? []).filter((setting) => {
    const { name, kind } = setting;
    if (kind === "list" || kind === "path") return false;
    return !shownAbove.has(name) && !isUseless(setting);
  });
  const groups = [...new Set(settings.map(({ group }) => group))];
  const givenCount = settings.filter(({ name }) => given.value[name] !== undefined).length;
  return (
    <details class="more">
      <summary>More settings{givenCount > 0 ? ` (${givenCount} given)` : ""}</summary>
      {groups.map((group) => (
        <fieldset key={group} class="section">
          <legend>{group}</legend>
          <div class="pair">
            {settings
              .filter((setting) => setting.group === group)
              .map((setting) => (
                <AnyField key={setting.name} setting={setting} />
              ))}
          </div>
        </fieldset>
      ))}
      <button type="button" onClick={clearForm}>
        All back to their defaults
      </button>
    </details>
  );
}

const shownAbove = new Set([
  ...["prompt", "negative_prompt", "width", "height", "num_inference_steps", "guidance_scale"],
  ...["scheduler", "sigmas", "quality", "recipe", "seed", "num_images"],
  ...["sync_mode", "warmup_steps", "strength"],
  ...["mask_area", "mask_content", "mask_blur", "mask_padding"],
  ...["hires", "hires_strength", "hires_steps", "hires_upscaler", "denoising_end"],
]);
