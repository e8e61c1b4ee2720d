/**
 * What a row of the table of settings holds, and the types of values that follow from it.
 */

/** Headings of `--help`, in this order. */
export const groups = [
  "Image",
  "Input image",
  "Control",
  "Image prompts",
  "Seeds and images",
  "Size",
  "Sampling",
  "Refiner",
  "Second pass",
  "Reuse of steps",
  "Model and device",
  "GPUs",
  "Several ranks",
  "Output",
] as const;
export type Group = (typeof groups)[number];

interface Common {
  /** Without dashes. With `_` for `-` it is the name in a request in JSON. */
  flag: string;
  /** Other names of the flag: shorter ones, and former ones. */
  aliases?: readonly string[];
  group: Group;
  /** `{range}` and `{names}` stand for what the row itself says of these. */
  help: string;
  /** Stands after the flag in `--help`. */
  hint?: string;
  /** What it belongs to: the images of one request, the open pipeline, or the command alone. */
  scope: "request" | "pipeline" | "command";
  /**
   * Between processes that generate one image together: whether all must be started with the same
   * value ("same"), or each may have its own ("own").
   */
  processes: "same" | "own";
  /** Under which key `--json` reports it; null where it does not. */
  json: string | null;
  /** True where the model or another setting brings a value if the user gives none. */
  modelDefault?: true;
  /** True where images do not depend on it: their metadata leave it out. */
  unrecorded?: true;
  /** True where it does nothing without guidance, which a warning then says. */
  needsGuidance?: true;
}

interface WholeSetting extends Common {
  kind: "whole";
  min: number;
  max: number;
  /** Whether "auto" may stand instead of a number. */
  orAuto?: true;
  default?: number;
}

interface NumberSetting extends Common {
  kind: "number";
  min: number;
  max: number;
  default?: number;
}

interface ChoiceSetting extends Common {
  kind: "choice";
  names: readonly string[];
  /** Whether a text means one of the names, spelled as elsewhere. */
  alsoAccepts?: (text: string) => boolean;
  /** Numbers that may stand instead of a name. */
  orNumbers?: NumberList;
  default?: string;
}

/** A list of numbers, each below the one before; with commas between them as a flag. */
export interface NumberList {
  whole: boolean;
  min: number;
  max: number;
  countMin: number;
  countMax: number;
}

interface NumbersSetting extends Common, NumberList {
  kind: "numbers";
}

interface TextSetting extends Common {
  kind: "text";
  default?: string;
  /** Whether an empty text differs from none. */
  emptyAllowed?: true;
}

interface BooleanSetting extends Common {
  kind: "boolean";
  /** True: `--help` shows the flag as --no-FLAG, and `help` says what that does. */
  default?: boolean;
}

/** Seeds are torch's: 63 bits without a sign. */
export const seedMax = 2n ** 63n - 1n;

/** The largest seed of the first of so many images, whose seeds go up by one. */
export function firstSeedMax(imageCount: number): bigint {
  return seedMax - BigInt(imageCount - 1);
}

/** Torch's CPU generator reads 32 bits of a seed, so that more would be longer to type in vain. */
export function chooseSeed(): bigint {
  return BigInt(crypto.getRandomValues(new Uint32Array(1))[0]!);
}

/** 0 to `seedMax`. */
interface SeedSetting extends Common {
  kind: "seed";
}

/** Kinds of models that have names in the folders of models. */
type ModelNames =
  | ("checkpoint" | "lora" | "vae" | "taesd")
  | ("embedding" | "controlnet" | "upscaler" | "ip-adapter" | "clip-vision");

interface PathSetting extends Common {
  kind: "path";
  names: "file" | "folder";
  /** The kind of model that it may also name, for completions. */
  models?: ModelNames;
  /** With its dot; the path must end in it. */
  extension?: string;
  default?: string;
}

/** An entry of a list: how it is read, checked and written. */
export interface ItemKind<Item> {
  /** From a flag's text; undefined where it cannot be read. */
  read(text: string): Item | undefined;
  /** From the value in a request in JSON; anything where it is none. */
  fromJson(value: unknown): unknown;
  accepts(value: unknown): value is Item;
  /** A text that `read` reads as `item`. */
  format(item: Item): string;
  /** Stands after "must", such as "be FILE or FILE:SCALE". */
  demand: string;
  /** The texts to choose from, where there are few. */
  names?: readonly string[];
}

/** A flag that may be given several times; its values stay in order. */
interface ListSetting extends Common {
  kind: "list";
  // biome-ignore lint/suspicious/noExplicitAny: the type of the entries follows from the row
  of: ItemKind<any>;
  /** What completes it. */
  names?: "file" | "folder";
  models?: ModelNames;
  max: number;
  default: readonly [];
}

export type Setting =
  | WholeSetting
  | NumberSetting
  | ChoiceSetting
  | TextSetting
  | BooleanSetting
  | SeedSetting
  | PathSetting
  | ListSetting
  | NumbersSetting;

type WithoutPlace<S> = S extends Setting
  ? Omit<S, "group" | "scope" | "processes" | "json"> & { group?: string }
  : never;

/** A row of any table: what its value is, without what belongs to the generation of images. */
export type AnySetting = WithoutPlace<Setting>;

type ValueOfKind<S> = S extends { kind: "choice"; names: readonly (infer Name)[] }
  ? Name | (S extends { orNumbers: NumberList } ? readonly number[] : never)
  : S extends { kind: "numbers" }
    ? readonly number[]
    : S extends { kind: "whole" | "number" }
      ? number | (S extends { orAuto: true } ? "auto" : never)
      : S extends { kind: "boolean" }
        ? boolean
        : S extends { kind: "seed" }
          ? bigint
          : S extends { kind: "list"; of: ItemKind<infer Item> }
            ? readonly Item[]
            : string;

type IsThere<S, Key extends string> = S extends Record<Key, unknown> ? true : false;

/** What a flag gives: `undefined` where it is absent and the table has no default. */
export type Given<S> =
  IsThere<S, "default"> extends true ? ValueOfKind<S> : ValueOfKind<S> | undefined;

/** What is known once the model has filled in its defaults. */
export type Resolved<S> = IsThere<S, "modelDefault"> extends true ? ValueOfKind<S> : Given<S>;

/** Undefined where the table has none. */
export function defaultOf(setting: AnySetting): unknown {
  return "default" in setting ? setting.default : undefined;
}
