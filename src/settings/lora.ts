/**
 * A LoRA as a setting: `FILE[:scale[:text-scale]]` as a flag, an object in the API and in JSON.
 */
import type { ItemKind } from "./setting.ts";

/** A file and its factors. */
export interface LoraChoice {
  /** A path, or a name from the folders of models. */
  file: string;
  /** Factor of the changes to the UNet. Default 1. */
  scale?: number | undefined;
  /** The same for the text encoders. Default: `scale`. */
  textScale?: number | undefined;
}

export const loraCountMax = 64;
export const loraScaleMax = 100;

/** Whether the number can be a scale. */
export function isLoraScale(value: unknown): value is number {
  return typeof value === "number" && Math.abs(value) <= loraScaleMax;
}

/** The number that `text` is; NaN where it is none. */
export function parseLoraScale(text: string): number {
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text.trim()) ? Number(text) : Number.NaN;
}

/**
 * Scales are read from the right and are numbers, so that colons may stand in a path. In JSON an
 * entry is such a text or an object with file, scale and text_scale.
 */
export const loraItem: ItemKind<LoraChoice> = {
  read(text) {
    const parts = text.split(":");
    const scales: number[] = [];
    while (parts.length > 1 && scales.length < 2) {
      const scale = parseLoraScale(parts.at(-1)!);
      if (Number.isNaN(scale)) break;
      scales.unshift(scale);
      parts.pop();
    }
    const [scale = 1, textScale = scale] = scales;
    return { file: parts.join(":"), scale, textScale };
  },
  fromJson(value) {
    if (typeof value === "string") return this.read(value);
    if (typeof value !== "object" || value === null) return value;
    const { text_scale: textScale, ...rest } = value as Record<string, unknown>;
    return textScale === undefined ? rest : { ...rest, textScale };
  },
  accepts(value): value is LoraChoice {
    if (typeof value !== "object" || value === null) return false;
    const { file, scale, textScale, ...unknown } = value as Record<string, unknown>;
    const scales = [scale, textScale].filter((each) => each !== undefined);
    const isFile = typeof file === "string" && file.trim() !== "";
    return isFile && scales.every(isLoraScale) && Object.keys(unknown).length === 0;
  },
  format: ({ file, scale = 1, textScale = scale }) => `${file}:${scale}:${textScale}`,
  demand: `be FILE, FILE:SCALE or FILE:SCALE:TEXT-SCALE with scales from -${loraScaleMax} to \
${loraScaleMax}`,
};
