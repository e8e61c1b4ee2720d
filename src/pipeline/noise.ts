/**
 * Where the noise of a request's images comes from, as other programs decide it: settings in, the
 * library's terms out (zig/pipeline/noise.zig).
 */
import { BasedXLError } from "../errors.ts";
import type * as abi from "../native/abi.ts";
import type { Schedule } from "../schedule.ts";
import { type Compat, compatDefault } from "../settings/compat.ts";
import type { NoiseOrder, NoiseSampler, Rng, StepRng } from "../settings/names.ts";
import type { Naming } from "../settings/values.ts";
import type { Start } from "./strength.ts";

interface NoiseSettings {
  compat: Compat;
  rng: Rng;
  noiseOrder: NoiseOrder;
  noiseBatch?: number | undefined;
  noiseIndex: number;
  noiseSampler: NoiseSampler;
  stepRng: StepRng;
  etaNoiseSeedDelta: number;
  variationSeed?: bigint | undefined;
  variationStrength: number;
}

/** An image's place in the batch that its noise is made with. */
interface Placed {
  seed: bigint;
  noisePlace: number;
  /** null for no variation. */
  variationSeed: bigint | null;
}

/** The same images with their seeds and places, and the images of their batch. */
export function inNoiseOrder<Image extends { seed: bigint }>(
  images: readonly Image[],
  settings: NoiseSettings,
  naming: Naming,
): { images: (Image & Placed)[]; noiseBatch: number | undefined } {
  const { noiseOrder, noiseBatch, noiseIndex } = settings;
  const variations = variationSeedsOf(settings, images.length, naming);
  if (noiseOrder === "image") {
    const seed = variations === null ? undefined : images[0]?.seed;
    const apart = images.map((image, index) => ({
      ...image,
      seed: seed ?? image.seed,
      noisePlace: 0,
      variationSeed: variations?.[index] ?? null,
    }));
    return { images: apart, noiseBatch: undefined };
  }
  const size = noiseBatch ?? noiseIndex + images.length;
  if (variations !== null && size > 1) {
    const [strength, order] = [naming("variationStrength"), naming("noiseOrder")];
    throw new BasedXLError(
      "bad-option",
      `${strength} is A1111's, which has no ${order} batch of several.`,
    );
  }
  const [first] = images;
  if (noiseIndex + images.length > size) {
    throw new BasedXLError(
      "bad-option",
      `${naming("noiseBatch")} is ${size}, but the last image's place in it is \
${noiseIndex + images.length - 1}: it must be above.`,
    );
  }
  const placed = images.map((image, index) => {
    const seed = first?.seed ?? image.seed;
    return {
      ...image,
      seed,
      noisePlace: noiseIndex + index,
      variationSeed: variations?.[index] ?? null,
    };
  });
  return { images: placed, noiseBatch: size };
}

/** Refuses Brownian noise for a schedule without noise levels. */
export function checkNoise(settings: NoiseSettings, schedule: Schedule, naming: Naming): void {
  const { noiseSampler } = settings;
  if (!isBrownian(settings, schedule) || brownianRangeOf(schedule) !== null) return;
  throw new BasedXLError(
    "bad-option",
    `${naming("noiseSampler")} ${noiseSampler} needs a sampler with noise levels, which \
${schedule.name} is not.`,
  );
}

/** Settings of noise that were given and do nothing in this request, one sentence each. */
export function unusedNoise(
  settings: NoiseSettings,
  given: Partial<NoiseSettings>,
  schedule: Schedule,
  naming: Naming,
): string[] {
  const { noiseOrder, variationStrength, stepRng, etaNoiseSeedDelta } = settings;
  const unused = (key: keyof NoiseSettings, why: string) => `${naming(key)} is not used${why}.`;
  const sentences: string[] = [];
  if (noiseOrder === "image") {
    const why = `: it needs ${naming("noiseOrder")} batch`;
    if (given.noiseBatch !== undefined) sentences.push(unused("noiseBatch", why));
    if ((given.noiseIndex ?? 0) !== 0) sentences.push(unused("noiseIndex", why));
  }
  if (given.variationSeed !== undefined && variationStrength === 0) {
    const why = `: it needs ${naming("variationStrength")} above 0`;
    sentences.push(unused("variationSeed", why));
  }
  if (!schedule.steps.some(({ samplesNoise }) => samplesNoise)) {
    const why = ` by the scheduler ${schedule.name}, whose steps add no noise`;
    const isAsked = {
      noiseSampler: (given.noiseSampler ?? "auto") !== "auto",
      stepRng: stepRng !== compatDefault(settings.compat, "stepRng"),
      etaNoiseSeedDelta: (given.etaNoiseSeedDelta ?? 0) !== 0,
    };
    for (const key of ["noiseSampler", "stepRng", "etaNoiseSeedDelta"] as const) {
      if (isAsked[key]) sentences.push(unused(key, why));
    }
  } else if (etaNoiseSeedDelta !== 0 && stepRng !== "same") {
    sentences.push(unused("etaNoiseSeedDelta", `: it needs ${naming("stepRng")} same`));
  } else if (etaNoiseSeedDelta !== 0 && isBrownian(settings, schedule)) {
    sentences.push(unused("etaNoiseSeedDelta", ": Brownian noise has the image's seed"));
  }
  return sentences;
}

type NoiseRequest = Pick<abi.Request, "noiseSource" | "noiseRng" | "noiseSeedDelta"> &
  Pick<abi.Request, "brownianMin" | "brownianMax" | "variationStrength"> & {
    variationSeeds: readonly bigint[];
    steps: Schedule["steps"];
    noiseBatch: number;
    noisePlaces: readonly number[];
  };

/** What the library is asked for, of a batch of images. */
export function noiseRequestOf(
  settings: NoiseSettings,
  schedule: Schedule,
  images: readonly Placed[],
): NoiseRequest {
  const { rng, stepRng, noiseSampler, etaNoiseSeedDelta } = settings;
  const variationSeeds = images.flatMap(({ variationSeed }) => variationSeed ?? []);
  const { steps } = schedule;
  const batch = {
    noiseBatch: settings.noiseBatch ?? 1,
    noisePlaces: images.map(({ noisePlace }) => noisePlace),
    noiseSeedDelta: 0n,
    ...{ variationSeeds, variationStrength: settings.variationStrength },
    ...{ brownianMin: 0, brownianMax: 0 },
  };
  if (isBrownian(settings, schedule)) {
    const [brownianMin, brownianMax] = brownianRangeOf(schedule) ?? [0, 0];
    return {
      ...batch,
      noiseSource: "brownian",
      noiseRng: noiseSampler === "brownian_gpu" ? "cuda" : rng,
      ...{ brownianMin, brownianMax },
      steps: steps.map((step, index) => ({ ...noiseLevelsOf(schedule, index), ...step })),
    };
  }
  if (stepRng === "same" && etaNoiseSeedDelta === 0) {
    return { ...batch, noiseSource: "generator", noiseRng: rng, steps };
  }
  if (stepRng === "same") {
    const noiseSeedDelta = BigInt(etaNoiseSeedDelta);
    return { ...batch, noiseSource: "new_generator", noiseRng: rng, noiseSeedDelta, steps };
  }
  // ComfyUI adds 1 on the CPU, where the first latent has the same generator.
  const noiseSeedDelta = stepRng === "cpu" ? 1n : 0n;
  return { ...batch, noiseSource: "new_generator", noiseRng: stepRng, noiseSeedDelta, steps };
}

/**
 * Tensors that each image's generator gives in a run, those before it included (zig/pipeline/
 * source.zig has their order). A Brownian path has none, and a new generator those of steps.
 */
export function noiseCountOf(
  settings: NoiseSettings,
  schedule: Schedule,
  {
    input,
    latents,
    start,
  }: {
    input: { mask: unknown } | null;
    latents: { noiseCount?: number | undefined } | null;
    start: Start | null;
  },
): number {
  const { noiseSource } = noiseRequestOf(settings, schedule, []);
  if (noiseSource === "brownian") return 0;
  const ofSteps = schedule.steps.filter(({ samplesNoise }) => samplesNoise).length;
  const before = (latents?.noiseCount ?? 0) + ofSteps;
  if (noiseSource === "new_generator") return before;
  const hasMask = Boolean(input?.mask);
  const first = Number(hasMask || start?.initNoiseSigma !== 0);
  if (!start?.samplesPosterior || input === null) return before + first;
  return before + first + 1 + Number(hasMask);
}

// --- internal ---

/** One up from image to image; null for no variation. */
function variationSeedsOf(
  { variationSeed, variationStrength }: NoiseSettings,
  count: number,
  naming: Naming,
): bigint[] | null {
  if (variationStrength === 0) return null;
  if (variationSeed === undefined) {
    const names = [naming("variationStrength"), naming("variationSeed")];
    throw new BasedXLError("bad-option", `${names[0]} needs ${names[1]}.`);
  }
  return Array.from({ length: count }, (_, index) => variationSeed + BigInt(index));
}

function isBrownian({ noiseSampler }: NoiseSettings, schedule: Schedule): boolean {
  const { noise, steps } = schedule;
  const [min, max] = brownianRangeOf(schedule) ?? [0, 1];
  // One step has no path, and adds nothing.
  if (min === max || !steps.some(({ samplesNoise }) => samplesNoise)) return false;
  return noiseSampler === "auto" ? noise === "brownian" : noiseSampler !== "generator";
}

/** k-diffusion's: the lowest level above 0 and the highest; null without levels. */
function brownianRangeOf({ brownianRange, sigmas, steps }: Schedule): [number, number] | null {
  if (brownianRange) return brownianRange;
  // Only where each evaluation is a step is it known which levels the noise is between.
  if (sigmas === null || sigmas.length !== steps.length + 1) return null;
  const levels = sigmas.filter((sigma) => sigma > 0);
  return [Math.min(...levels), Math.max(...levels)];
}

function noiseLevelsOf({ sigmas }: Schedule, index: number) {
  return { noiseFrom: sigmas?.[index] ?? 0, noiseTo: sigmas?.[index + 1] ?? 0 };
}
