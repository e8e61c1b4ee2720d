/**
 * Models and LoRAs by the names that other programs have for them: ComfyUI's with the file's
 * ending, A1111's with a hash in brackets behind. Nothing that is not listed is ever opened.
 */
import { stemOf } from "../../library/scan.ts";
import type { Capabilities } from "../capabilities.ts";

export type ListedModel = Capabilities["models"][number];

/** null where none has the name. */
export function modelNamed(
  { models }: Pick<Capabilities, "models">,
  name: string,
): ListedModel | null {
  const plain = withoutHash(name);
  const stem = stemOf(plain);
  const has = (wanted: string) => (model: ListedModel) => [model.id, model.name].includes(wanted);
  return (
    models.find(has(name)) ??
    models.find(has(plain)) ??
    models.find((model) => [model.id, model.name].some((each) => stemOf(each) === stem)) ??
    models.find(
      ({ sha256 }) => isHash(plain) && sha256?.startsWith(plain.toLowerCase()) === true,
    ) ??
    null
  );
}

/** The one that requests without a model get. */
export function defaultModel({ models }: Pick<Capabilities, "models">): ListedModel | null {
  return models.find(({ isDefault }) => isDefault) ?? models[0] ?? null;
}

/** The name of one of a list, perhaps sent with its file's ending; null where there is none. */
export function nameIn(list: readonly { name: string }[], name: string): string | null {
  const stem = stemOf(name);
  const found =
    list.find((each) => each.name === name) ?? list.find((each) => stemOf(each.name) === stem);
  return found?.name ?? null;
}

/** Without A1111's hash in brackets. */
export function withoutHash(name: string): string {
  return name.replace(/\s*\[[0-9a-f]{6,64}\]\s*$/i, "").trim();
}

// --- internal ---

function isHash(text: string): boolean {
  return /^[0-9a-f]{8,64}$/i.test(text);
}
