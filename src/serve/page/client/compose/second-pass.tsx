/**
 * The second pass, which makes the image larger, where the server has it.
 */
import { capabilities } from "../server/capabilities.ts";
import type { ListedSetting } from "../server/wire.ts";
import { AnyFieldOf, Labelled, Options, Segments, SliderField } from "./field.tsx";
import { give, given, infoOf } from "./form.ts";

/** Settings of a second pass that is not asked for do nothing. */
export function needsSecondPass({ name, group }: ListedSetting): boolean {
  return group === "Second pass" && name !== "hires" && given.value.hires === undefined;
}

export function SecondPassFields() {
  if (infoOf("hires") === undefined) return null;
  const { hires, hires_upscaler: upscaler } = given.value;
  const isOther = hires !== undefined && !factors.includes(Number(hires));
  const isOfPixels = upscaler !== undefined && !String(upscaler).startsWith("latent");
  return (
    <fieldset class="section">
      <legend>Second pass, larger</legend>
      <Segments
        name="hires"
        values={[undefined, ...factors, ...(isOther ? [Number(hires)] : [])]}
        chosen={hires}
        textOf={(factor) => (factor === undefined ? "None" : `${factor}×`)}
        onChoose={(factor) => give("hires", factor)}
      />
      {hires !== undefined && (
        <>
          <SliderField
            {...{ name: "hires_strength", label: "Strength", min: 0.05, max: 1, step: 0.05 }}
            usual={isOfPixels ? 0.4 : 0.7}
          />
          <div class="pair">
            <AnyFieldOf name="hires_steps" label="Steps" />
            <UpscalerField />
          </div>
        </>
      )}
    </fieldset>
  );
}

// --- internal ---

const factors: readonly number[] = [1.5, 2];
/** Those of every server. */
const ownUpscalers = ["latent", "latent-bicubic", "latent-nearest-exact", "lanczos"];

function UpscalerField() {
  const { hires_upscaler: chosen } = given.value;
  const files = capabilities.value?.upscalers.map(({ name }) => name) ?? [];
  return (
    <Labelled name="hires_upscaler" label="Enlarged by">
      <select
        id="field-hires_upscaler"
        value={String(chosen ?? "")}
        onChange={({ currentTarget: { value } }) => give("hires_upscaler", value || undefined)}
      >
        <option value="">Default (latent)</option>
        <Options names={[...ownUpscalers, ...files]} chosen={chosen} />
      </select>
    </Labelled>
  );
}
