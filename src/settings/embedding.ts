/**
 * An embedding of textual inversion as a setting: `FILE[=NAME]` as a flag, an object in the API and
 * in JSON.
 */
import type { ItemKind } from "./setting.ts";

/** A file and the word that stands for it in prompts. */
export interface EmbeddingChoice {
  /** A path, or a name from the folders of models. */
  file: string;
  /** Default: the file's name without its ending. */
  name?: string | undefined;
}

export const embeddingCountMax = 256;

/**
 * The name stands behind the last "=" and is no path, so that "=" may stand in one. In JSON an
 * entry is such a text or an object with file and name.
 */
export const embeddingItem: ItemKind<EmbeddingChoice> = {
  read(text) {
    const [, file, name] = /^(.+)=([^=/\\]+)$/s.exec(text) ?? [];
    const isName = name !== undefined && !/\.(safetensors|sft|pt|bin)$/i.test(name);
    return isName ? { file: file!, name: name.trim() } : { file: text };
  },
  fromJson(value) {
    return typeof value === "string" ? this.read(value) : value;
  },
  accepts(value): value is EmbeddingChoice {
    if (typeof value !== "object" || value === null) return false;
    const { file, name, ...unknown } = value as Record<string, unknown>;
    const isText = (each: unknown) => typeof each === "string" && each.trim() !== "";
    const isNamed = name === undefined || isText(name);
    return isText(file) && isNamed && Object.keys(unknown).length === 0;
  },
  format: ({ file, name }) => (name === undefined ? file : `${file}=${name}`),
  demand: "be FILE or FILE=NAME",
};
