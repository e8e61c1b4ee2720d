/**
 * Images as prompts, where the server has an IP-Adapter: the image follows them as it follows the
 * words.
 */
import { signal } from "@preact/signals";
import { capabilities } from "../server/capabilities.ts";
import type { JobRequest, ListedSetting } from "../server/wire.ts";
import { IconButton } from "../ui/icons.tsx";
import { Slider } from "./field.tsx";
import { given } from "./form.ts";
import { ChoiceItem, firstOf, giveFirst, NetworkChoice, NumberItem } from "./list-items.tsx";
import { base64Of, drop, type Picture, PictureInput, pictureOf } from "./picture.tsx";

/** What the adapter sees, together. */
const seen = signal<readonly Picture[]>([]);

/** Settings of an IP-Adapter that is not asked for do nothing. */
export function needsIpAdapter({ name }: ListedSetting): boolean {
  return name.startsWith("ip_") && name !== "ip_adapter" && given.value.ip_adapter === undefined;
}

/** The images as a job's request has them. */
export async function imagePromptsOfForm(): Promise<Pick<JobRequest, "ip_images">> {
  if (seen.value.length === 0 || given.value.ip_adapter === undefined) return {};
  return { ip_images: await Promise.all(seen.value.map(({ file }) => base64Of(file))) };
}

export function ImagePromptFields() {
  const names = capabilities.value?.ipAdapters.map(({ name }) => name) ?? [];
  if (names.length === 0 && given.value.ip_adapter === undefined) return null;
  const encoders = capabilities.value?.imageEncoders.map(({ name }) => name) ?? [];
  return (
    <fieldset class="section">
      <legend>Image prompt</legend>
      <NetworkChoice name="ip_adapter" label="IP-Adapter" names={names} onNone={() => show([])} />
      {firstOf("ip_adapter") !== undefined && (
        <>
          <Seen />
          <ScaleField />
          <div class="pair">
            <NumberItem name="ip_start" label="From" {...{ usual: 0, max: 1 }} />
            <NumberItem name="ip_end" label="To" {...{ usual: 1, max: 1 }} />
          </div>
          {encoders.length > 0 && (
            <ChoiceItem name="ip_encoder" label="Image encoder" names={encoders} />
          )}
        </>
      )}
    </fieldset>
  );
}

// --- internal ---

/** The old ones that are no longer shown are let go. */
function show(next: readonly Picture[]): void {
  for (const picture of seen.value) if (!next.includes(picture)) drop(picture);
  seen.value = next;
}

function Seen() {
  return (
    <>
      {seen.value.length > 0 && (
        <ul class="thumbnails">
          {seen.value.map((picture, at) => (
            <li key={picture.address}>
              <img src={picture.address} alt={`Seen by the adapter, ${at + 1}`} />
              <IconButton
                icon="close"
                label={`Remove image prompt ${at + 1}`}
                class="small"
                onClick={() => show(seen.value.filter((each) => each !== picture))}
              />
            </li>
          ))}
        </ul>
      )}
      <PictureInput
        label={seen.value.length === 0 ? "Choose an image" : "Add an image"}
        onFiles={(files) => show([...seen.value, ...files.map(pictureOf)])}
        multiple
      />
    </>
  );
}

/** Images have the same scale here. */
function ScaleField() {
  return (
    <Slider
      {...{ name: "ip_scale", label: "Scale", min: 0, max: 2, step: 0.05 }}
      value={Number(firstOf("ip_scale") ?? 1)}
      box={{ min: 0, max: 10 }}
      onValue={(scale) => giveFirst("ip_scale", scale === 1 ? undefined : scale)}
    />
  );
}
