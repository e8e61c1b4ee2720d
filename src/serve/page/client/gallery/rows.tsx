/**
 * Which ranks made which rows of an image, over the image; and the same image in another mode, to
 * see what the exchange between them changes.
 */
import { effect, type Signal } from "@preact/signals";
import { infoOf } from "../compose/form.ts";
import { isActive, jobs, submit } from "../server/jobs.ts";
import type { ImageSettings, RankRows } from "../server/wire.ts";
import { Icon } from "../ui/icons.tsx";
import { attempt, note } from "../ui/messages.tsx";

export function RowsOverlay({ rows }: { rows: readonly RankRows[] }) {
  const height = rows.reduce((sum, { count }) => sum + count, 0);
  return (
    <ol class="rows" aria-label="Rows of the ranks">
      {rows.map(({ ranks, first, count }) => (
        <li
          key={first}
          ref={(row) => {
            row?.style.setProperty("top", `${(100 * first) / height}%`);
            row?.style.setProperty("height", `${(100 * count) / height}%`);
          }}
        >
          <span class="badge">
            {ranks.length === 1 ? "Rank" : "Ranks"} {ranks.join(", ")}: rows {first} to{" "}
            {first + count - 1}
          </span>
        </li>
      ))}
    </ol>
  );
}

/** Of all steps or those in the guidance window, and of those outside of it. */
export type RowKind = "rows" | "unguidedRows";

interface RowsButtonsProps {
  said: ImageSettings;
  shown: Signal<RowKind | null>;
}

/** Turns the overlay on and off. */
export function RowsButtons({ said, shown }: RowsButtonsProps) {
  const button = (kind: RowKind, label: string) => (
    <button
      type="button"
      aria-pressed={shown.value === kind}
      onClick={() => (shown.value = shown.value === kind ? null : kind)}
    >
      <Icon name="rows" /> {label}
    </button>
  );
  return (
    <>
      {button("rows", "Rows")}
      {said.unguidedRows && button("unguidedRows", "Rows without guidance")}
    </>
  );
}

interface OtherModeProps {
  said: ImageSettings;
  /** Called with the name of the other image. */
  onImage(name: string): void;
}

/** Generates the image in another mode; shown where several ranks share its rows. */
export function OtherMode({ said, onImage }: OtherModeProps) {
  const modes = infoOf("sync_mode")?.names?.filter((name) => name !== said.request.sync_mode) ?? [];
  return (
    <select
      aria-label="Compare with another mode"
      value=""
      onChange={({ currentTarget }) => {
        const { value } = currentTarget;
        currentTarget.value = "";
        if (value !== "") void attempt(() => generateIn(value, said, onImage));
      }}
    >
      <option value="">Compare with mode …</option>
      {modes.map((mode) => (
        <option key={mode} value={mode}>
          {mode}
        </option>
      ))}
    </select>
  );
}

// --- internal ---

async function generateIn(
  mode: string,
  { request, model, refiner }: ImageSettings,
  onImage: (name: string) => void,
): Promise<void> {
  const { id } = await submit({
    request: { ...request, sync_mode: mode },
    ...{ model: model ?? undefined, refiner: refiner ?? undefined },
  });
  note(`The image is generated in ${mode}.`);
  const stop = effect(() => {
    const job = jobs.value.get(id);
    if (job === undefined || isActive(job)) return;
    const [image] = job.images;
    // The effect has no name yet while it runs for the first time.
    queueMicrotask(() => stop());
    if (image !== undefined) onImage(image.file);
  });
}
