/**
 * A ControlNet and its hint, where the server has some.
 */
import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { call } from "../server/api.ts";
import { capabilities } from "../server/capabilities.ts";
import type { JobRequest, ListedSetting } from "../server/wire.ts";
import { Icon } from "../ui/icons.tsx";
import { attempt } from "../ui/messages.tsx";
import { given, settingValue } from "./form.ts";
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
            <ChoiceItem name="control_preprocess" label="Made by" />
            <NumberItem name="control_start" label="From" {...{ usual: 0, max: 1 }} />
            <NumberItem name="control_end" label="To" {...{ usual: 1, max: 1 }} />
            <ChoiceItem name="control_type" label="Kind (union)" />
          </div>
        </>
      )}
    </fieldset>
  );
}

// --- internal ---

const previewSideMax = 512;

function HintField() {
  if (hint.value === null) {
    return <PictureInput label="Hint" onFiles={([file]) => put(hint, file ?? null)} />;
  }
  const how = firstOf("control_preprocess");
  return (
    <>
      <div class="pair">
        <img class="hint-picture" src={hint.value.address} alt="What steers" />
        {typeof how === "string" && how !== "none" && <MadeHint file={hint.value.file} how={how} />}
      </div>
      <button type="button" class="own-width" onClick={() => put(hint, null)}>
        <Icon name="close" /> Another hint
      </button>
    </>
  );
}

/** The hint that is made of the image, as the server makes it, smaller. */
function MadeHint({ file, how }: { file: Blob; how: string }) {
  const made = useSignal<string | null>(null);
  const [width, height] = smaller(Number(settingValue("width")), Number(settingValue("height")));
  useEffect(() => {
    const end = new AbortController();
    const query = new URLSearchParams({ preprocess: how, width, height });
    const show = async () => {
      const request = { method: "POST", body: file, signal: end.signal } as const;
      made.value = URL.createObjectURL(await (await call(`/hints?${query}`, request)).blob());
    };
    void attempt(show);
    return () => {
      end.abort();
      if (made.value !== null) URL.revokeObjectURL(made.value);
      made.value = null;
    };
  }, [file, how, width, height]);
  return made.value && <img class="hint-picture" src={made.value} alt={`Made by ${how}`} />;
}

/** At most as large as a preview is to be, as texts. */
function smaller(width: number, height: number): [string, string] {
  const scale = Math.min(1, previewSideMax / Math.max(width, height));
  const side = (pixels: number) => String(Math.max(1, Math.round(pixels * scale)));
  return [side(width), side(height)];
}
