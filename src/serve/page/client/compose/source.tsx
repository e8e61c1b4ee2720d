/**
 * The image that a job starts from, and the mask painted over it, where the server takes them.
 */
import { signal } from "@preact/signals";
import { capabilities } from "../server/capabilities.ts";
import type { JobRequest, ListedSetting } from "../server/wire.ts";
import { Icon } from "../ui/icons.tsx";
import { attempt } from "../ui/messages.tsx";
import { Brush, maskOf, type Stroke } from "./brush.tsx";
import { AnyFieldOf, SliderField } from "./field.tsx";
import { given } from "./form.ts";
import { base64Of, type Picture, PictureInput, put } from "./picture.tsx";

const source = signal<Picture | null>(null);
const strokes = signal<readonly Stroke[]>([]);

/** Settings of an image that is not there do nothing. */
export function needsSource({ name, group }: ListedSetting): boolean {
  if (group !== "Input image" || source.value === null) return group === "Input image";
  if (name === "mask_padding" && given.value.mask_area !== "masked") return true;
  return ofMasks.has(name) && strokes.value.length === 0;
}

export function hasSource(): boolean {
  return source.value !== null;
}

/** Image and mask as a job's request has them, in base64. */
export async function inputOfForm(): Promise<Pick<JobRequest, "image" | "mask">> {
  if (source.value === null || !capabilities.value?.features.img2img) return {};
  const { file } = source.value;
  const image = await base64Of(file);
  if (strokes.value.length === 0) return { image };
  const { width, height } = await createImageBitmap(file);
  return { image, mask: await base64Of(await maskOf(strokes.value, { width, height })) };
}

export function SourceFields() {
  const features = capabilities.value?.features;
  if (!features?.img2img) return null;
  return (
    <fieldset class="section">
      <legend>Starting image</legend>
      {source.value === null ? (
        <PictureInput label="Starting image" onFiles={([file]) => startFrom(file ?? null)} />
      ) : (
        <>
          {features.inpaint ? (
            <Brush
              image={source.value.address}
              strokes={strokes.value}
              onChange={(next) => (strokes.value = next)}
            />
          ) : (
            <img src={source.value.address} alt="What the job starts with" />
          )}
          <button type="button" class="own-width" onClick={() => startFrom(null)}>
            <Icon name="close" /> Start from noise again
          </button>
          <SliderField
            {...{ name: "strength", label: "Strength", min: 0.05, max: 1, step: 0.05 }}
            usual={strokes.value.length > 0 ? 1 : 0.75}
          />
          {strokes.value.length > 0 && <MaskFields />}
        </>
      )}
    </fieldset>
  );
}

/** For an image of the gallery. */
export function StartFromButton({ address, onTaken }: { address: string; onTaken: () => void }) {
  if (!capabilities.value?.features.img2img) return null;
  const take = async () => {
    startFrom(await (await fetch(address)).blob());
    onTaken();
  };
  return (
    <button type="button" onClick={() => attempt(take)}>
      Start from it
    </button>
  );
}

// --- internal ---

const ofMasks = new Set([
  ...["invert_mask", "mask_blur", "mask_area", "mask_content", "mask_padding"],
]);

function MaskFields() {
  return (
    <div class="pair">
      <AnyFieldOf name="mask_area" />
      <AnyFieldOf name="mask_content" />
      <AnyFieldOf name="mask_blur" />
      {given.value.mask_area === "masked" && <AnyFieldOf name="mask_padding" />}
    </div>
  );
}

/** null for none. */
function startFrom(file: Blob | null): void {
  put(source, file);
  strokes.value = [];
}
