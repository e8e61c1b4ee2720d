/**
 * Fields of settings that are lists with an entry for each network. The page has one network of a
 * kind, so its fields are the first entries.
 */
import { Labelled, Options } from "./field.tsx";
import { give, given, infoOf } from "./form.ts";

/** undefined where it is not given. */
export function firstOf(name: string): unknown {
  const value = given.value[name];
  return Array.isArray(value) ? value[0] : undefined;
}

/** undefined or "" takes it back. */
export function giveFirst(name: string, value: unknown): void {
  give(name, value === undefined || value === "" ? undefined : [value]);
}

interface ItemProps {
  name: string;
  label: string;
}

export function NumberItem({
  name,
  label,
  usual,
  max,
}: ItemProps & { usual: number; max: number }) {
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

interface ChoiceProps extends ItemProps {
  /** Default: those of the setting. */
  names?: readonly string[];
}

export function ChoiceItem({ name, label, names = infoOf(name)?.names ?? [] }: ChoiceProps) {
  const chosen = firstOf(name);
  return (
    <Labelled {...{ name, label }}>
      <select
        id={`field-${name}`}
        value={String(chosen ?? "")}
        onChange={({ currentTarget }) => giveFirst(name, currentTarget.value)}
      >
        <option value="">Default</option>
        <Options names={names} chosen={chosen} />
      </select>
    </Labelled>
  );
}

interface NetworkProps {
  /** The setting that names it. */
  name: string;
  label: string;
  names: readonly string[];
  /** Called when there is to be none. */
  onNone(): void;
}

/** Which network of a kind there is, or none. */
export function NetworkChoice({ name, label, names, onNone }: NetworkProps) {
  const chosen = firstOf(name);
  return (
    <select
      aria-label={label}
      value={String(chosen ?? "")}
      onChange={({ currentTarget: { value } }) => {
        giveFirst(name, value);
        if (value === "") onNone();
      }}
    >
      <option value="">None</option>
      <Options names={names} chosen={chosen} />
    </select>
  );
}
