/**
 * The flags of `sample` as values: each checked by itself and with its like. An absent flag has the
 * table's default, or stays `undefined` until the model's is known.
 */
import { badOption, escaped } from "../errors.ts";
import { seedsFrom } from "../pipeline/request.ts";
import { chooseSeed, defaultOf, firstSeedMax } from "./setting.ts";
import { type GivenSettings, type SettingKey, settingKeys, settingOf, settings } from "./table.ts";
import { parseSetting } from "./values.ts";

/**
 * The flags, checked as far as they can be without a model; see `table.ts` for each. They are a
 * request to the pipeline, and its devices, as they stand.
 */
export interface SampleOptions
  extends Omit<GivenSettings, "seed" | "prompt" | "negativePrompt" | "image" | "mask"> {
  /** A path, or the bytes of standard input. */
  image: string | Uint8Array | undefined;
  mask: string | Uint8Array | undefined;
  /** One for all images, or one for each. */
  prompt: string | undefined | readonly string[];
  negativePrompt: string | undefined | readonly string[];
  /** One per image. */
  seeds: bigint[];
  seedIsRandom: boolean;
  wantLatents: boolean;
  /** What cannot be taken over from the image of --from-image, in sentences. */
  recallWarnings?: readonly string[] | undefined;
  /** Hashes of what that image started from. */
  recalledInput?: { image: string; mask?: string | undefined } | null | undefined;
}

/** What citty gives: by flag, and positionals in `_`. */
export interface SampleArgs {
  _: string[];
  [flag: string]: string | number | boolean | string[] | undefined;
}

interface ParseOptions {
  randomSeed?: () => bigint;
  /** What an image says, which flags override. */
  recalled?:
    | (Pick<SampleOptions, "recalledInput"> & {
        settings: Partial<GivenSettings>;
        warnings: readonly string[];
      })
    | undefined;
}

/** The settings that flags give. */
export function explicitSettings(args: SampleArgs): ReadonlySet<SettingKey> {
  const given = settingKeys.filter((key) => args[settings[key].flag] !== undefined);
  return new Set([...given, ...(args._.length > 0 ? (["prompt"] as const) : [])]);
}

/** Checks each flag by itself. Throws `BasedXLError` "bad-option". */
export function parseSampleOptions(
  args: SampleArgs,
  { randomSeed = chooseSeed, recalled }: ParseOptions = {},
): SampleOptions {
  if (args.quiet && args.verbose) {
    throw badOption("--quiet and --verbose contradict each other: keep one of the two.");
  }
  const earlier = withoutListed(recalled?.settings, args);
  const given = Object.fromEntries(
    settingKeys.map((key) => [key, readFlag(key, args[settings[key].flag], earlier)]),
  ) as unknown as GivenSettings;
  const { seed, ...others } = given;
  const { rankCount, vaeTiling, imageCount } = others;
  const byFlag = args[settings.prompt.flag] === undefined ? undefined : given.prompt;
  if (vaeTiling && rankCount > 1) {
    throw badOption(
      `--vae-tiling is for one rank: with --gpus ${rankCount} the ranks share the decode, exactly. \
Leave one of the two out.`,
    );
  }
  checkCompanions(others);
  if (args[settings.splitBatch.flag] === true && others.balance !== "off") {
    throw badOption(
      `--split-batch and --balance ${escaped(others.balance, 60)} contradict each other: guidance \
branches are of one size and cannot be dealt by speed.`,
    );
  }
  if (seed !== undefined) checkSeedRoom(seed, imageCount);
  return {
    ...others,
    prompt: promptOf(args._, byFlag) ?? given.prompt,
    seeds: seedsFrom(seed ?? randomSeed(), imageCount),
    seedIsRandom: seed === undefined,
    wantLatents: given.latentsPath !== undefined,
    recallWarnings: recalled?.warnings,
    recalledInput: recalled?.recalledInput,
  };
}

// --- internal ---

/** A flag that does nothing without another is a mistake. */
function checkCompanions(options: Omit<GivenSettings, "seed">): void {
  const { taesd, previewSteps, previewProtocol, wildcards, dynamicPrompts } = options;
  const { stylesPath, style, cells, xyz } = options;
  const refuse = (isLost: boolean, flag: string, purpose: string, missing: string) => {
    if (isLost) throw badOption(`${flag} is for ${purpose}: add ${missing}, or leave it out.`);
  };
  const has = (value: unknown) => value !== undefined;
  const isProtocolSet = previewProtocol !== settings.previewProtocol.default;
  refuse(has(taesd) && !has(previewSteps), "--taesd", "previews", "--preview N");
  refuse(isProtocolSet && !has(previewSteps), "--preview-protocol", "previews", "--preview N");
  refuse(
    has(wildcards) && !dynamicPrompts,
    "--wildcards",
    "__name__ in prompts",
    "--dynamic-prompts",
  );
  refuse(has(stylesPath) && !has(style), "--styles", "the rows that are named", "--style NAME");
  refuse(!cells && !has(xyz), "--no-cells", "sheets of axes", "--xyz AXES");
}

/** Recalled settings without those that a list of noise levels in the flags decides. */
function withoutListed(recalled: Partial<GivenSettings> | undefined, args: SampleArgs) {
  const isList = String(args[settings.sigmas.flag] ?? "").includes(",");
  if (recalled === undefined || !isList) return recalled;
  const { stepCount: _, warmupSteps: __, ...others } = recalled;
  return others;
}

/** A flag's value, else the recalled one, else the table's default, else undefined. */
function readFlag(
  key: SettingKey,
  given: SampleArgs[string],
  recalled: Partial<GivenSettings> | undefined,
): unknown {
  if (given === undefined) return recalled?.[key] ?? defaultOf(settingOf(key));
  return typeof given === "boolean" ? given : parseSetting(key, String(given));
}

function promptOf(positionals: readonly string[], byFlag: string | undefined): string | undefined {
  const [positional, second] = positionals;
  if (second !== undefined) {
    throw badOption(
      `The prompt is one argument, but "${positional}" is followed by "${second}": \
put it in quotes.`,
    );
  }
  if (positional !== undefined && byFlag !== undefined) {
    throw badOption(
      `The prompt is given twice, as "${positional}" and by --prompt "${byFlag}": keep one.`,
    );
  }
  if (positional?.trim() === "") throw badOption("The prompt is empty: say what the image shows.");
  return positional ?? byFlag;
}

/** The seeds of all images, one up each, must be seeds too. */
function checkSeedRoom(seed: bigint, imageCount: number): void {
  const firstMax = firstSeedMax(imageCount);
  if (seed <= firstMax) return;
  throw badOption(
    `--seed ${seed} leaves no room for the seeds of ${imageCount} images, one up each: it must \
be at most ${firstMax}.`,
  );
}
