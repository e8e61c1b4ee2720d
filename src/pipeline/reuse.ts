/**
 * What each evaluation of the model takes from earlier ones: deep features of the last full one
 * (DeepCache), outputs of cross-attention from the gate on (T-GATE). Each is counted in
 * evaluations: a sampler that evaluates the model twice in a step may take the second's from the
 * first.
 */
import { badOption, escaped } from "../errors.ts";
import type { Model } from "../models/model.ts";
import type { StepReuse } from "../native/abi.ts";
import type { Schedule } from "../schedule.ts";
import type { Quality } from "../settings/names.ts";
import type { Naming } from "../settings/values.ts";
import { stepOfEvaluation } from "./guidance-window.ts";

/** Those of models that are made for few: too few to take one from another. */
export const fewSteps = 8;

interface ReuseSettings {
  quality: Quality;
  deepCache?: string | undefined;
  deepCacheThreshold?: number | undefined;
  deepCacheBranch: number;
  crossAttentionGate?: number | undefined;
}

/** In the terms of the library; the outer blocks have `outerSkips` skip connections. */
export interface Reuse {
  outerSkips: number;
  reuseThreshold: number;
  reuse: readonly StepReuse[];
}

/** The schedules of `--deep-cache` by quality. */
const deepCacheOf: Readonly<Record<Quality, string>> = {
  exact: "1",
  high: "1,2@0.2",
  balanced: "2,4@0.4",
  fast: "3,5@0.3",
};

/**
 * The reuse of a request, null where every step computes everything, and the schedule with guidance
 * that ends at the gate. Throws "bad-option".
 */
export function withReuse(
  schedule: Schedule,
  settings: ReuseSettings,
  { stepCount, model, naming }: { stepCount: number; model: Model; naming: Naming },
): { schedule: Schedule; reuse: Reuse | null } {
  const count = schedule.steps.length;
  const stepOf = stepOfEvaluation(schedule, Math.min(stepCount, count));
  const gate = gateOf(settings, stepCount, naming);
  const isGated = (evaluation: number) => stepOf(evaluation) >= gate;
  const deep = deepStepsOf(settings, count, naming);
  if (gate === Number.POSITIVE_INFINITY && deep.every((each) => each === "full")) {
    return { schedule, reuse: null };
  }
  const branch = settings.deepCacheBranch;
  const skipCount = model.unet.layersPerBlock.reduce((sum, layers) => sum + layers + 1, 0);
  if (branch >= skipCount) {
    throw badOption(
      `${naming("deepCacheBranch")} must be from 0 to ${skipCount - 1} for this model, not \
${branch}.`,
    );
  }
  const cross = (evaluation: number) => {
    if (isGated(evaluation)) return "reuse";
    return isGated(evaluation + 1) && evaluation + 1 < count ? "keep" : "compute";
  };
  const steps = schedule.steps.map((step, i) =>
    isGated(i) ? { ...step, guidanceFactor: 0 } : step,
  );
  return {
    schedule: { ...schedule, steps },
    reuse: {
      outerSkips: deep.every((each) => each === "full") ? 0 : branch + 1,
      reuseThreshold: settings.deepCacheThreshold ?? 0,
      reuse: deep.map((each, i) => ({ deep: each, cross: cross(i) })),
    },
  };
}

/** A warning where so few steps leave nothing to reuse: each changes most of the image. */
export function fewStepsWarning(
  { quality, deepCache, deepCacheThreshold }: ReuseSettings,
  reuse: Reuse | null,
  naming: Naming,
): string[] {
  const steps = reuse?.reuse ?? [];
  const cached = steps.filter(({ deep }) => deep === "cached").length;
  if (cached === 0 || steps.length > fewSteps || deepCacheThreshold !== undefined) return [];
  const asked =
    deepCache === undefined
      ? `${naming("quality")} ${quality}`
      : `${naming("deepCache")} ${deepCache}`;
  return [
    `${asked} leaves deep features as they are in ${cached} of only ${steps.length} steps, each of \
which changes most of the image: ${naming("quality")} exact computes them all.`,
  ];
}

/** Steps by what they computed, for reports. */
export interface ReusedSteps {
  full: number;
  /** With the deep features of an earlier step. */
  cached: number;
  /** With cross-attention of an earlier step; some of them are among the cached ones. */
  gated: number;
}

export function reusedSteps(parts: readonly { deep: string; cross: string }[]): ReusedSteps {
  const cached = parts.filter(({ deep }) => deep === "reuse").length;
  const gated = parts.filter(({ cross }) => cross === "reuse").length;
  const full = parts.filter(({ deep, cross }) => deep !== "reuse" && cross !== "reuse").length;
  return { full, cached, gated };
}

// --- internal ---

/** The first step that is gated. */
function gateOf(
  { crossAttentionGate = 0 }: ReuseSettings,
  stepCount: number,
  naming: Naming,
): number {
  if (crossAttentionGate === 0) return Number.POSITIVE_INFINITY;
  if (crossAttentionGate < stepCount) return crossAttentionGate;
  throw badOption(
    `${naming("crossAttentionGate")} must be below the number of steps, ${stepCount}, not \
${crossAttentionGate}.`,
  );
}

function deepStepsOf(
  { quality, deepCache, deepCacheThreshold }: ReuseSettings,
  count: number,
  naming: Naming,
): StepReuse["deep"][] {
  if (deepCacheThreshold !== undefined) {
    if (deepCache === undefined) return Array(count).fill("adaptive");
    const [one, other] = [naming("deepCache"), naming("deepCacheThreshold")];
    throw badOption(`${one} and ${other} exclude each other.`);
  }
  const segments = segmentsOf(deepCache ?? deepCacheOf[quality], naming("deepCache"));
  return Array.from({ length: count }, (_, i) => {
    const begun = segments.map((each) => ({ ...each, first: Math.floor(each.from * count) }));
    const { interval, first } = begun.findLast((each) => each.first <= i)!;
    return (i - first) % interval === 0 ? "full" : "cached";
  });
}

/** Intervals, each from a fraction of the steps on. */
function segmentsOf(text: string, name: string): { interval: number; from: number }[] {
  const segments = text.split(",").map((part, i) => {
    const match = /^(\d{1,4})(?:@(0?\.\d{1,6}))?$/.exec(part.trim());
    const isWhole = match !== null && (match[2] === undefined) === (i === 0);
    return { interval: isWhole ? Number(match[1]) : 0, from: Number(match?.[2] ?? 0) };
  });
  const rises = segments.every(({ from }, i) => i === 0 || from > segments[i - 1]!.from);
  if (rises && segments.every(({ interval }) => interval > 0)) return segments;
  throw badOption(
    `${name} must be a number of steps, and where it changes others with the fraction of the steps \
from which they hold, as in 2,4@0.5: not "${escaped(text, 60)}".`,
  );
}
