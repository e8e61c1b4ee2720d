/**
 * A second model that finishes the images, where the server has another one.
 */
import { capabilities } from "../server/capabilities.ts";
import type { ListedSetting } from "../server/wire.ts";
import { Options, SliderField } from "./field.tsx";
import { give, model, refiner } from "./form.ts";

/** Settings of a refiner that is not asked for are refused. */
export function needsRefiner({ group }: ListedSetting): boolean {
  return group === "Refiner" && refinerOfForm() === null;
}

/** null for none, also where the server no longer has it or generates with it. */
export function refinerOfForm(): string | null {
  const { value } = refiner;
  return value !== null && others().includes(value) ? value : null;
}

export function RefinerFields() {
  const names = others();
  if (names.length === 0) return null;
  const chosen = refinerOfForm();
  return (
    <fieldset class="section">
      <legend>Refiner</legend>
      <select
        aria-label="Refiner"
        value={chosen ?? ""}
        onChange={({ currentTarget: { value } }) => {
          refiner.value = value || null;
          if (value === "") give("denoising_end", undefined);
        }}
      >
        <option value="">None</option>
        <Options names={names} />
      </select>
      {chosen !== null && (
        <>
          <SliderField
            {...{ name: "denoising_end", label: "Takes over at", min: 0.5, max: 1, step: 0.05 }}
            usual={1}
          />
          <p class="hint">At 1 it makes the last 0.3 of the steps anew.</p>
        </>
      )}
    </fieldset>
  );
}

// --- internal ---

/** Refiners first. */
function others(): readonly string[] {
  const models = (capabilities.value?.models ?? []).filter(({ id }) => id !== model.value?.id);
  const isRefiner = ({ kind }: (typeof models)[number]) => kind === "refiner";
  return [...models.filter(isRefiner), ...models.filter((each) => !isRefiner(each))].map(
    ({ id }) => id,
  );
}
