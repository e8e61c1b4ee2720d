/**
 * A ControlNet and its hint, where the server has some.
 */
import { signal } from "@preact/signals";
import { capabilities } from "../server/capabilities.ts";
import type { JobRequest, ListedSetting } from "../server/wire.ts";
import { Icon } from "../ui/icons.tsx";
import { Labelled, Options } from "./field.tsx";
import { give, given } from "./form.ts";
import { base64Of, type Picture, PictureInput, put } from "./picture.tsx";

/** The image that steers. */
const hint = signal<Picture | null>(null);

/** Settings of a ControlNet that is not asked for do nothing. */
export function needsControlNet({ name }: ListedSetting): boolean {
  return name.startsWith("control_") && given.value.controlnet === undefined;
}

/** The hint as a job's request has it. */
export async function hintOfForm(): Promise<Pick<JobRequest, "control_images">> {
  if (hint.value === null || given.value.controlnet === undefined) return {};
  return { control_images: [await base64Of(hint.value.file)] };
}

export function ControlFields() {
  const names = capabilities.value?.controlnets.map(({ name }) => name) ?? [];
  if (names.length === 0) return null;
  const chosen = firstOf("controlnet");
  return (
    <fieldset class="field">
      <legend>ControlNet</legend>
      <select
        aria-label="ControlNet"
        value={String(chosen ?? "")}
        onChange={({ currentTarget }) => choose(currentTarget.value)}
      >
        <option value="">None</option>
        <Options names={names} />
      </select>
      {chosen !== undefined && (
        <>
          <HintField />
          <div class="pair">
            <NumberItem name="control_scale" label="Scale" {...{ usual: 1, max: 2 }} />
            <ChoiceItem name="control_preprocess" label="Made by" names={preprocessors} />
            <NumberItem name="control_start" label="From" {...{ usual: 0, max: 1 }} />
            <NumberItem name="control_end" label="To" {...{ usual: 1, max: 1 }} />
            <ChoiceItem name="control_type" label="Kind, of union models" names={types} />
          </div>
        </>
      )}
    </fieldset>
  );
}

// --- internal ---

const preprocessors = ["none", "canny", "grey", "blur", "tile"];
const types = ["openpose", "depth", "sketch", "line", "normal", "segment", "tile", "repaint"];

/** Settings are lists, with an entry for each ControlNet: the page has one. */
function firstOf(name: string): unknown {
  const value = given.value[name];
  return Array.isArray(value) ? value[0] : undefined;
}

function giveFirst(name: string, value: unknown): void {
  give(name, value === undefined || value === "" ? undefined : [value]);
}

function choose(name: string): void {
  giveFirst("controlnet", name);
  if (name === "") put(hint, null);
}

function HintField() {
  if (hint.value === null) {
    return <PictureInput label="Hint" onFile={(file) => put(hint, file)} />;
  }
  return (
    <>
      <img class="hint-picture" src={hint.value.address} alt="What steers" />
      <button type="button" onClick={() => put(hint, null)}>
        <Icon name="close" /> Another hint
      </button>
    </>
  );
}

interface ItemProps {
  name: string;
  label: string;
}

function NumberItem({ name, label, usual, max }: ItemProps & { usual: number; max: number }) {
  return (
    <Labelled {...{ name, label }}>
      <input
        id={`field-${name}`}
        type="number"
        {...{ min: 0, max, step: 0.05, value: Number(firstOf(name) ?? usual) }}
        onChange={({ currentTarget: { value } }) =>
          giveFirst(name, Number(value) === usual ? undefined : Number(value))
        }
      />
    </Labelled>
  );
}

function ChoiceItem({ name, label, names }: ItemProps & { names: readonly string[] }) {
  return (
    <Labelled {...{ name, label }}>
      <select
        id={`field-${name}`}
        value={String(firstOf(name) ?? "")}
        onChange={({ currentTarget }) => giveFirst(name, currentTarget.value)}
      >
        <option value="">Default</option>
        <Options names={names} />
      </select>
    </Labelled>
  );
}
