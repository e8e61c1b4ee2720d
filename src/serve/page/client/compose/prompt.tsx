/**
 * A prompt's text box: Ctrl+Up and Ctrl+Down change weights, and names of LoRAs and embeddings are
 * offered as a list, while the text keeps the focus.
 */
import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { capabilities } from "../server/capabilities.ts";
import { accept, type Completion, type CompletionOption, completionAt } from "./complete.ts";
import { give, given } from "./form.ts";
import { changeWeight } from "./weights.ts";

const weightStep = 0.1;

interface PromptBoxProps {
  /** The setting's name in requests. */
  name: string;
  label: string;
  placeholder: string;
}

export function PromptBox({ name, label, placeholder }: PromptBoxProps) {
  const box = useRef<HTMLTextAreaElement>(null);
  const offer = useSignal<Completion | null>(null);
  const chosen = useSignal(0);
  /** Where the caret goes once the text is in the box. */
  const caret = useRef<[number, number] | null>(null);
  const names = useComputed(() => ({
    loras: capabilities.value?.loras.map(({ name }) => name) ?? [],
    embeddings: capabilities.value?.embeddings.map(({ name }) => name) ?? [],
  }));
  const text = String(given.value[name] ?? "");

  useLayoutEffect(() => {
    const { current } = box;
    if (current === null) return;
    fitHeight(current);
    if (caret.current !== null) current.setSelectionRange(...caret.current);
    caret.current = null;
  }, [text]);

  // A box that was hidden, or is narrower now, has other lines.
  useEffect(() => {
    const observer = new ResizeObserver(() => box.current && fitHeight(box.current));
    if (box.current) observer.observe(box.current);
    return () => observer.disconnect();
  }, []);

  const write = (next: string, start: number, end = start) => {
    caret.current = [start, end];
    give(name, next === "" ? undefined : next);
  };
  const take = (option: CompletionOption) => {
    if (offer.value === null) return;
    const next = accept(text, offer.value, option);
    offer.value = null;
    write(next.text, next.caret);
    box.current?.focus();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (onWeightKey(event, text, write)) return;
    if (offer.value !== null && onListKey(event, offer, chosen, take)) event.preventDefault();
  };
  const onInput = ({ currentTarget }: { currentTarget: HTMLTextAreaElement }) => {
    const { value, selectionStart } = currentTarget;
    give(name, value === "" ? undefined : value);
    offer.value = completionAt(value, selectionStart, names.value);
    chosen.value = 0;
  };
  const id = `field-${name}`;
  const isOpen = offer.value !== null;
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <textarea
        {...{ id, ref: box, rows: 2, value: text, placeholder, spellcheck: false }}
        {...{ onInput, onKeyDown, onBlur: () => setTimeout(() => (offer.value = null), 150) }}
        aria-autocomplete="list"
        aria-haspopup="listbox"
        aria-controls={`${id}-list`}
        aria-activedescendant={isOpen ? `${id}-${chosen.value}` : undefined}
        autocomplete="off"
      />
      <Completions {...{ id, options: offer.value?.options ?? [], chosen: chosen.value, take }} />
    </div>
  );
}

// --- internal ---

interface CompletionsProps {
  /** Of the text box. */
  id: string;
  options: readonly CompletionOption[];
  chosen: number;
  take(option: CompletionOption): void;
}

function Completions({ id, options, chosen, take }: CompletionsProps) {
  const hidden = options.length === 0;
  return (
    <div id={`${id}-list`} class="completions" role="listbox" aria-label="Names" hidden={hidden}>
      {options.map((option, at) => (
        // biome-ignore lint/a11y/useKeyWithClickEvents: the text box has the keys
        <div
          key={option.insert}
          id={`${id}-${at}`}
          role="option"
          tabIndex={-1}
          aria-selected={at === chosen}
          onMouseDown={(event) => event.preventDefault()}
          onClick={() => take(option)}
        >
          <span>{option.name}</span>
          <small>{option.kind}</small>
        </div>
      ))}
    </div>
  );
}

type Write = (text: string, start: number, end?: number) => void;

/** Ctrl+Up and Ctrl+Down, also with the Command key. */
function onWeightKey(event: KeyboardEvent, text: string, write: Write): boolean {
  const isUp = event.key === "ArrowUp";
  if (!(event.ctrlKey || event.metaKey) || !(isUp || event.key === "ArrowDown")) return false;
  event.preventDefault();
  const { selectionStart: start, selectionEnd: end } = event.currentTarget as HTMLTextAreaElement;
  const next = changeWeight({ text, start, end }, isUp ? weightStep : -weightStep);
  if (next !== null) write(next.text, next.start, next.end);
  return true;
}

/** True where the open list takes the key. */
function onListKey(
  { key }: KeyboardEvent,
  offer: { value: Completion | null },
  chosen: { value: number },
  take: (option: CompletionOption) => void,
): boolean {
  const options = offer.value?.options ?? [];
  if (key === "Escape") offer.value = null;
  else if (key === "ArrowDown") chosen.value = (chosen.value + 1) % options.length;
  else if (key === "ArrowUp") chosen.value = (chosen.value || options.length) - 1;
  else if (key === "Enter" || key === "Tab") take(options[chosen.value]!);
  else return false;
  return true;
}

/** As many lines as the text has, within the limits of the style. */
function fitHeight(box: HTMLTextAreaElement): void {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}
