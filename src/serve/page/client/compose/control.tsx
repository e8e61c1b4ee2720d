/**
 * A ControlNet and its hint, where the server has some.
 */
import { signal } from "@preact/signals";
import { capabilities } from "../server/capabilities.ts";
import type { JobRequest, ListedSetting } from "../server/wire.ts";
import { Icon } from "../ui/icons.tsx";
import { given } from "./form.ts";
import { ChoiceItem, firstOf, NetworkChoice, NumberItem } from "./list-items.tsx";
import { base64Of, type Picture, PictureInput, put } from "./picture.tsx";

/** The image that steers. */
const hint = signal<Picture | null>(null);

/** Settings of a ControlNet that is not asked for do nothing. */
export function needsControlNet({ name }: ListedSetting): boolean {
  return name.startsWith("control_") && given.value.controlnet === undefined;
}

export function hasHint(): boolean {
  return hint.value !== null;
}

/** The hint as a job's request has it. */
export async function hintOfForm(): Promise<Pick<JobRequest, "control_images">> {
  if (hint.value === null || given.value.controlnet === undefined) return {};
  return { control_images: [await base64Of(hint.value.file)] };
}

export function ControlFields() {
  const names = capabilities.value?.controlnets.map(({ name }) => name) ?? [];
  if (names.length === 0 && given.value.controlnet === undefined) return null;
  return (
    <fieldset class="section">
      <legend>ControlNet</legend>
      <NetworkChoice
        {...{ name: "controlnet", label: "ControlNet", names }}
        onNone={() => put(hint, null)}
      />
      {firstOf("controlnet") !== undefined && (
        <>
          <HintField />
          <div class="pair">
            <NumberItem name="control_scale" label="Scale" {...{ usual: 1, max: 2 }} />
            <ChoiceItem name="control_preprocess" label="Made by" names={preprocessors} />
            <NumberItem name="control_start" label="From" {...{ usual: 0, max: 1 }} />
            <NumberItem name="control_end" label="To" {...{ usual: 1, max: 1 }} />
            <ChoiceItem name="control_type" label="Kind (union)" names={types} />
          </div>
        </>
      )}
    </fieldset>
  );
}

// --- internal ---

const preprocessors = ["none", "canny", "grey", "blur", "tile"];
const types = ["openpose", "depth", "sketch", "line", "normal", "segment", "tile", "repaint"];

function HintField() {
  if (hint.value === null) {
    return <PictureInput label="Hint" onFiles={([file]) => put(hint, file ?? null)} />;
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
