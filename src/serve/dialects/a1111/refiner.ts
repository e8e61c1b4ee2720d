/**
 * A1111's refiner as another model that goes on with the steps.
 * Source: A1111 1.10 and Forge, modules/sd_samplers_common.py (apply_refiner).
 */
import { type RequestSettings, settings as table } from "../../../settings/table.ts";
import type { Capabilities } from "../../capabilities.ts";
import { type ListedModel, modelNamed } from "../listed-names.ts";
import { A1111Error, notThere } from "./errors.ts";
import { type CommonFields, inRange } from "./fields.ts";
import type { A1111Options } from "./options.ts";

interface Refiner {
  refiner?: string;
  denoisingEnd?: number;
}

/** `stepCount` are those that are taken. Nothing where the model takes all. Throws `A1111Error`. */
export function refinerOf(
  { refiner_checkpoint: name, refiner_switch_at: switchAt, prompt }: CommonFields,
  { model, stepCount, lists }: { model: ListedModel; stepCount: number; lists: Capabilities },
): Refiner {
  if (!name || /^none$/i.test(name)) return {};
  const found = modelNamed(lists, name);
  if (found === null) {
    throw new A1111Error(422, `Could not find checkpoint with name ${name.slice(0, 200)}`);
  }
  if (switchAt === null || switchAt <= 0) {
    throw notThere("A refiner that takes all steps (refiner_switch_at of 0 or none)");
  }
  const isNeverReached = (stepCount - 1) / stepCount < switchAt;
  if (found.id === model.id || isNeverReached) return {};
  // They are of no refiner of SDXL, whose layers have other widths.
  if (found.kind !== "refiner" && /<(lora|lyco):/i.test(prompt)) {
    throw notThere("A LoRA of the refiner (refiner_checkpoint)");
  }
  return { refiner: found.id, denoisingEnd: switchAt };
}

/** Where they are not the usual ones. Throws `A1111Error`. */
export function scoresOf({
  sdxl_refiner_high_aesthetic_score: high,
  sdxl_refiner_low_aesthetic_score: low,
}: A1111Options): Pick<RequestSettings, "aestheticScore" | "negativeAestheticScore"> {
  const { aestheticScore, negativeAestheticScore } = table;
  const score = inRange("sdxl_refiner_high_aesthetic_score", high, aestheticScore);
  const negative = inRange("sdxl_refiner_low_aesthetic_score", low, negativeAestheticScore);
  return {
    ...(score !== aestheticScore.default && { aestheticScore: score }),
    ...(negative !== negativeAestheticScore.default && { negativeAestheticScore: negative }),
  };
}
