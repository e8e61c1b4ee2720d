/**
 * One image large, with what it says about itself and what can be done with it.
 */
import { signal, useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { withoutDefaults } from "../compose/form.ts";
import { takeSettings } from "../compose/restore.ts";
import { keep } from "../compose/seed.tsx";
import { StartFromButton } from "../compose/source.tsx";
import type { ImageSettings } from "../server/wire.ts";
import { useModal } from "../ui/dialog.tsx";
import { fileSize, valueText } from "../ui/format.ts";
import { Icon, IconButton } from "../ui/icons.tsx";
import { attempt, report } from "../ui/messages.tsx";
import { Comparison } from "./compare.tsx";
import { Frame } from "./frame.tsx";
import { deleteImage, fileAddress, images, settingsOf, thumbnailAddress } from "./images.ts";
import { OtherMode, type RowKind, RowsButtons, RowsOverlay } from "./rows.tsx";

const shown = signal<string | null>(null);
/** The image on the other side of the comparison. */
const other = signal<string | null>(null);

export function open(name: string): void {
  shown.value = name;
  other.value = null;
}

export function Viewer() {
  const name = shown.value;
  const dialog = useModal(name !== null);
  return (
    <dialog
      ref={dialog}
      class="viewer"
      aria-label="Image"
      onClose={() => (shown.value = null)}
      onKeyDown={({ key, target }) => {
        if (target instanceof HTMLInputElement || target instanceof HTMLSelectElement) return;
        if (key === "ArrowLeft") move(-1);
        if (key === "ArrowRight") move(1);
      }}
    >
      {name !== null && <Opened key={name} name={name} />}
    </dialog>
  );
}

// --- internal ---

/** Shows the two images under a slider. */
function compare(name: string, second: string): void {
  shown.value = name;
  other.value = second;
}

function Opened({ name }: { name: string }) {
  const picks = useSignal(false);
  const said = useSignal<ImageSettings | null>(null);
  const shownRows = useSignal<RowKind | null>(null);
  const rows = shownRows.value && said.value?.[shownRows.value];
  const overlay = rows && <RowsOverlay rows={rows} />;
  useEffect(() => {
    settingsOf(name).then((settings) => (said.value = settings), report);
  }, [name]);
  return (
    <>
      <div class="viewer-picture">
        {other.value === null ? (
          <Frame address={fileAddress(name)} alt={String(said.value?.request.prompt ?? name)}>
            {overlay}
          </Frame>
        ) : (
          <Comparison first={name} second={other.value}>
            {overlay}
          </Comparison>
        )}
        {picks.value && <Picker except={name} onPick={(second) => (other.value = second)} />}
      </div>
      <aside>
        <Actions {...{ name, said: said.value }} onCompare={() => (picks.value = !picks.value)}>
          {said.value && (said.value.rows?.length ?? 0) > 1 && (
            <>
              <RowsButtons said={said.value} shown={shownRows} />
              <OtherMode said={said.value} onImage={(second) => compare(name, second)} />
            </>
          )}
        </Actions>
        {said.value && <Parameters {...{ name, said: said.value }} />}
      </aside>
    </>
  );
}

interface ActionsProps {
  name: string;
  said: ImageSettings | null;
  onCompare(): void;
  children?: ComponentChildren;
}

function Actions({ name, said, onCompare, children }: ActionsProps) {
  const asks = useSignal(false);
  const seed = said?.request.seed;
  const use = (settings: ImageSettings) => {
    shown.value = null;
    takeSettings(settings, "the image");
  };
  return (
    <div class="actions">
      <div class="section-row">
        <IconButton icon="left" label="Newer image" onClick={() => move(-1)} />
        <IconButton icon="right" label="Older image" onClick={() => move(1)} />
        <IconButton icon="close" label="Close" class="close" onClick={() => (shown.value = null)} />
      </div>
      <button
        type="button"
        class="primary"
        disabled={!said?.tool}
        onClick={() => said && use(said)}
      >
        Use these settings
      </button>
      {seed !== undefined && (
        <button type="button" onClick={() => keep(String(seed))}>
          Use the seed
        </button>
      )}
      <button type="button" aria-pressed={other.value !== null} onClick={onCompare}>
        <Icon name="compare" /> Compare
      </button>
      {children}
      <StartFromButton address={fileAddress(name)} onTaken={() => (shown.value = null)} />
      <a class="button" href={fileAddress(name)} download={name}>
        <Icon name="download" /> Download
      </a>
      {asks.value ? (
        <button type="button" class="danger" onClick={() => attempt(() => remove(name))}>
          Delete for good
        </button>
      ) : (
        <button type="button" onClick={() => (asks.value = true)}>
          <Icon name="trash" /> Delete
        </button>
      )}
    </div>
  );
}

function Parameters({ name, said }: { name: string; said: ImageSettings }) {
  const file = images.value.find((image) => image.name === name);
  const { prompt, negative_prompt: negative, ...others } = withoutDefaults(said.request);
  return (
    <>
      {prompt !== undefined && <p class="said">{String(prompt)}</p>}
      {negative !== undefined && negative !== "" && <p class="said quiet">{String(negative)}</p>}
      <dl>
        {file && <Row term="file" value={`${name}, ${fileSize(file.bytes)}`} />}
        {said.model && <Row term="model" value={said.model} />}
        {said.refiner && <Row term="refiner" value={said.refiner} />}
        {Object.entries(others).map(([term, value]) => (
          <Row key={term} term={term.replaceAll("_", " ")} value={valueText(value)} />
        ))}
        <Row term="written by" value={said.tool ?? "an unknown program, without parameters"} />
      </dl>
      {said.warnings.map((warning) => (
        <p key={warning} class="hint">
          {warning}
        </p>
      ))}
    </>
  );
}

function Row({ term, value }: { term: string; value: string }) {
  return (
    <div>
      <dt>{term}</dt>
      <dd>{value}</dd>
    </div>
  );
}

function Picker({ except, onPick }: { except: string; onPick(name: string): void }) {
  return (
    <fieldset class="strip" aria-label="Compare with">
      {images.value
        .filter(({ name }) => name !== except)
        .slice(0, 24)
        .map(({ name }) => (
          <button key={name} type="button" aria-label={`With ${name}`} onClick={() => onPick(name)}>
            <img src={thumbnailAddress(name)} alt="" />
          </button>
        ))}
    </fieldset>
  );
}

/** To the image beside the shown one. */
function move(by: number): void {
  const at = images.value.findIndex(({ name }) => name === shown.value);
  const next = images.value[at + by];
  if (at >= 0 && next !== undefined) open(next.name);
}

async function remove(name: string): Promise<void> {
  await deleteImage(name);
  shown.value = null;
}
