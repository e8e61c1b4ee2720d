/**
 * Fields of single settings: a label, its explanation behind "?", the control, and a way back to
 * the default where a value is given.
 */
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import type { ListedSetting } from "../server/wire.ts";
import { valueText } from "../ui/format.ts";
import { IconButton } from "../ui/icons.tsx";
import { give, given, infoOf, settingValue } from "./form.ts";

interface FieldProps {
  name: string;
  label: string;
  /** What stands for the value that is not given. */
  unset?: string;
}

/** A label over a control. */
export function Labelled({
  name,
  label,
  children,
}: {
  name: string;
  label: string;
  children: ComponentChildren;
}) {
  const isOpen = useSignal(false);
  const info = infoOf(name);
  return (
    <div class="field">
      <div class="label-row">
        <label for={`field-${name}`}>{label}</label>
        {info && (
          <button
            type="button"
            class="hint-button"
            aria-expanded={isOpen.value}
            aria-label={`What ${label} is`}
            onClick={() => (isOpen.value = !isOpen.value)}
          >
            ?
          </button>
        )}
        {given.value[name] !== undefined && (
          <IconButton
            icon="undo"
            label={`${label}: back to the default`}
            title="Back to the default"
            class="small"
            onClick={() => give(name, undefined)}
          />
        )}
      </div>
      {children}
      {isOpen.value && <p class="hint">{info?.help}</p>}
    </div>
  );
}

interface AnyFieldProps {
  setting: ListedSetting;
  /** Default: the setting's name. */
  label?: string | undefined;
}

interface NumberFieldProps extends FieldProps {
  /** Of the slider; the box takes what the setting allows. */
  min: number;
  max: number;
  step: number;
  /** What holds where neither the form nor the model says anything. Default: `min`. */
  usual?: number;
}

/** A slider for the usual values, and a box for all of them. */
export function SliderField({ name, label, min, max, step, usual = min }: NumberFieldProps) {
  const value = Number(settingValue(name) ?? usual);
  const info = infoOf(name);
  const box = { min: info?.min ?? min, max: info?.max ?? max };
  return (
    <Slider {...{ name, label, min, max, step, value, box }} onValue={(next) => give(name, next)} />
  );
}

interface SliderProps extends Omit<NumberFieldProps, "usual" | "unset"> {
  value: number;
  /** What the box takes. */
  box: { min: number; max: number };
  onValue(value: number): void;
}

/** The same of a value that is no setting by itself. */
export function Slider({ name, label, value, box, onValue, ...slider }: SliderProps) {
  const take = (text: string) => {
    if (text !== "" && Number.isFinite(Number(text))) onValue(Number(text));
  };
  return (
    <Labelled {...{ name, label }}>
      <div class="slider">
        <input
          type="range"
          aria-label={`${label}, slider`}
          {...{ ...slider, value: Math.min(slider.max, value) }}
          onInput={({ currentTarget }) => take(currentTarget.value)}
        />
        <input
          id={`field-${name}`}
          type="number"
          {...{ ...box, step: "any", value }}
          onChange={({ currentTarget }) => take(currentTarget.value)}
        />
      </div>
    </Labelled>
  );
}

interface OptionsProps {
  names: readonly string[];
  /** The value that holds; one that is not among the names is offered too. */
  chosen?: unknown;
}

/** What a `select` chooses from. */
export function Options({ names, chosen }: OptionsProps) {
  const isListed = chosen === undefined || names.includes(String(chosen));
  return (isListed ? names : [String(chosen), ...names]).map((name) => (
    <option key={name} value={name}>
      {name}
    </option>
  ));
}

/** One of the setting's names; a list of numbers may stand instead. */
export function ChoiceField({ name, label, unset = "Default" }: FieldProps) {
  const names = infoOf(name)?.names ?? [];
  const value = given.value[name];
  return (
    <Labelled {...{ name, label }}>
      <select
        id={`field-${name}`}
        value={value === undefined ? "" : String(value)}
        onChange={({ currentTarget }) => give(name, currentTarget.value || undefined)}
      >
        <option value="">{unset}</option>
        <Options names={names} chosen={value} />
      </select>
    </Labelled>
  );
}

/** Any setting, by its kind. */
export function AnyField({ setting, label = labelOf(setting.name) }: AnyFieldProps) {
  const { name, kind } = setting;
  if (kind === "choice") return <ChoiceField {...{ name, label, unset: unsetOf(setting) }} />;
  if (kind === "boolean") return <BooleanField {...{ name, label, unset: unsetOf(setting) }} />;
  return (
    <Labelled {...{ name, label }}>
      <input
        id={`field-${name}`}
        type="text"
        placeholder={unsetOf(setting)}
        value={valueText(given.value[name])}
        onChange={({ currentTarget }) => give(name, readValue(kind, currentTarget.value))}
      />
    </Labelled>
  );
}

/** The same by its name, where the server lists it. */
export function AnyFieldOf({ name, label }: { name: string; label?: string }) {
  const setting = infoOf(name);
  return setting ? <AnyField {...{ setting, label }} /> : null;
}

interface SegmentsProps<T> {
  /** Of the group of radio buttons. */
  name: string;
  values: readonly T[];
  chosen: unknown;
  textOf(value: T): string;
  onChoose(value: T): void;
}

/** One of a few values, side by side. */
export function Segments<T extends string | number | undefined>(props: SegmentsProps<T>) {
  const { name, values, chosen, textOf, onChoose } = props;
  return (
    <div class="segments">
      {values.map((value) => (
        <label key={value} class="chip">
          <input
            type="radio"
            name={name}
            class="visually-hidden"
            checked={value === chosen}
            onChange={() => onChoose(value)}
          />
          <span>{textOf(value)}</span>
        </label>
      ))}
    </div>
  );
}

// --- internal ---

/** `num_inference_steps` as "Num inference steps". */
function labelOf(name: string): string {
  const words = name.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function BooleanField({ name, label, unset = "Default" }: FieldProps) {
  const value = given.value[name];
  return (
    <Labelled {...{ name, label }}>
      <select
        id={`field-${name}`}
        value={value === undefined ? "" : String(value)}
        onChange={({ currentTarget: { value } }) =>
          give(name, value === "" ? undefined : value === "true")
        }
      >
        <option value="">{unset}</option>
        <option value="true">Yes</option>
        <option value="false">No</option>
      </select>
    </Labelled>
  );
}

function unsetOf(setting: ListedSetting): string {
  const value = setting.default;
  if (value === undefined || value === "") return "Default";
  return `Default (${typeof value === "boolean" ? (value ? "yes" : "no") : String(value)})`;
}

/** A text as the setting's value; what cannot be read is left to the server, which says why. */
function readValue(kind: ListedSetting["kind"], text: string): unknown {
  if (text.trim() === "") return undefined;
  const number = Number(text);
  if ((kind === "whole" || kind === "number") && Number.isFinite(number)) return number;
  if (kind === "numbers") return text.split(",").map(Number);
  return text;
}
