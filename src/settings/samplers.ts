/**
 * The samplers: their files, their names here and elsewhere, and what each is good for. A file in
 * `samplers/` and a row here are a sampler; tests go through the rows.
 */
import { ddim } from "../samplers/ddim.ts";
import { ddpm } from "../samplers/ddpm.ts";
import { deis } from "../samplers/deis.ts";
import { dpm2, dpm2Ancestral } from "../samplers/dpm2.ts";
import { dpmpp2m, dpmpp2mSde, dpmpp3m } from "../samplers/dpmpp-multistep.ts";
import { dpmpp2s } from "../samplers/dpmpp-singlestep.ts";
import { euler } from "../samplers/euler.ts";
import { eulerAncestral } from "../samplers/euler-ancestral.ts";
import { heun } from "../samplers/heun.ts";
import { lcm } from "../samplers/lcm.ts";
import { lms } from "../samplers/lms.ts";
import type { SigmaKind } from "../samplers/names.ts";
import { pndm } from "../samplers/pndm.ts";
import { tcd } from "../samplers/tcd.ts";
import type { Sampler } from "../samplers/types.ts";
import { unipc } from "../samplers/unipc.ts";

interface SamplerRow {
  /** Its coefficients. */
  sampler: Sampler;
  /** The class of diffusers that it is equal to; several rows may share one. */
  className: string;
  /** A1111's name, then others; case, spaces, "-" and "_" do not matter, "+" is "p". */
  others: readonly [string, ...string[]];
  /** What it is, in one line. */
  text: string;
}

/** The most wanted first. */
export const samplerRows = {
  euler: {
    sampler: euler,
    className: "EulerDiscreteScheduler",
    others: ["Euler"],
    text: "first order; SDXL's own, and few-step models with trailing spacing",
  },
  euler_a: {
    sampler: eulerAncestral,
    className: "EulerAncestralDiscreteScheduler",
    others: ["Euler a", "euler_ancestral"],
    text: "Euler with fresh noise in each step",
  },
  dpmpp_2m: {
    sampler: dpmpp2m,
    className: "DPMSolverMultistepScheduler",
    others: ["DPM++ 2M"],
    text: "second order from the last two outputs; 20 to 30 steps, best with Karras sigmas",
  },
  dpmpp_2m_sde: {
    sampler: dpmpp2mSde,
    className: "DPMSolverMultistepScheduler",
    others: ["DPM++ 2M SDE"],
    text: "the same with fresh noise in each step: more detail",
  },
  dpmpp_3m: {
    sampler: dpmpp3m,
    className: "DPMSolverMultistepScheduler",
    others: ["DPM++ 3M"],
    text: "third order from the last three outputs",
  },
  unipc: {
    sampler: unipc,
    className: "UniPCMultistepScheduler",
    others: ["UniPC", "uni_pc", "uni_pc_bh2"],
    text: "predictor and corrector; 10 to 20 steps",
  },
  heun: {
    sampler: heun,
    className: "HeunDiscreteScheduler",
    others: ["Heun"],
    text: "second order, two evaluations per step: exact and slow",
  },
  lcm: {
    sampler: lcm,
    className: "LCMScheduler",
    others: ["LCM"],
    text: "for LCM and DMD2: 2 to 8 steps, fresh noise between them",
  },
  tcd: {
    sampler: tcd,
    className: "TCDScheduler",
    others: ["TCD"],
    text: "for TCD, Hyper-SD and PCM: few steps, noise set by --eta",
  },
  lms: {
    sampler: lms,
    className: "LMSDiscreteScheduler",
    others: ["LMS"],
    text: "linear multistep over the last four outputs",
  },
  dpm2: {
    sampler: dpm2,
    className: "KDPM2DiscreteScheduler",
    others: ["DPM2", "dpm_2"],
    text: "midpoint method, two evaluations per step",
  },
  dpm2_a: {
    sampler: dpm2Ancestral,
    className: "KDPM2AncestralDiscreteScheduler",
    others: ["DPM2 a", "dpm_2_ancestral"],
    text: "midpoint method with fresh noise in each step",
  },
  ddim: {
    sampler: ddim,
    className: "DDIMScheduler",
    others: ["DDIM"],
    text: "first order in the training's timesteps; noise set by --eta",
  },
  ddpm: {
    sampler: ddpm,
    className: "DDPMScheduler",
    others: ["DDPM"],
    text: "the process of training backwards; many steps",
  },
  pndm: {
    sampler: pndm,
    className: "PNDMScheduler",
    others: ["PLMS"],
    text: "pseudo linear multistep (PLMS), one evaluation more than steps",
  },
  deis: {
    sampler: deis,
    className: "DEISMultistepScheduler",
    others: ["DEIS"],
    text: "exponential integrator over the last outputs",
  },
  dpmpp_2s: {
    sampler: dpmpp2s,
    className: "DPMSolverSinglestepScheduler",
    others: ["DPM++ 2S"],
    text: "DPM++ in groups of steps that forget the ones before",
  },
} as const satisfies Readonly<Record<string, SamplerRow>>;

export type Scheduler = keyof typeof samplerRows;
export const schedulers = Object.keys(samplerRows) as Scheduler[];

/** A sampler by any of its names, and the sigmas that a name such as "DPM++ 2M Karras" asks for. */
interface NamedSampler {
  name: Scheduler;
  sigmas?: SigmaKind;
}

/** What `text` names, in the spelling of diffusers, A1111, ComfyUI or here; null for nothing. */
export function samplerNamed(text: string): NamedSampler | null {
  const key = normalized(text);
  const name = spellings.get(key);
  if (name) return { name };
  for (const sigmas of ["karras", "exponential", "beta"] as const) {
    const base = key.endsWith(sigmas) ? spellings.get(key.slice(0, -sigmas.length)) : undefined;
    if (base) return { name: base, sigmas };
  }
  return null;
}

/** One line per sampler: its name, what it is, and its other names. */
export function describeSamplers(): string {
  const width = Math.max(...schedulers.map(({ length }) => length));
  const lines = schedulers.map((name) => {
    const { className, others, text }: SamplerRow = samplerRows[name];
    return `${name.padEnd(width)}  ${text} (${[className, ...others].join(", ")})`;
  });
  return lines.join("\n");
}

// --- internal ---

const spellings = new Map<string, Scheduler>();
for (const name of schedulers) {
  const { className, others }: SamplerRow = samplerRows[name];
  for (const each of [name, className, className.replace("Scheduler", ""), ...others]) {
    const key = normalized(each);
    // The first row of a class that several rows share has its name.
    if (!spellings.has(key)) spellings.set(key, name);
  }
}

function normalized(text: string): string {
  return text
    .toLowerCase()
    .replaceAll("+", "p")
    .replaceAll(/[\s_-]/g, "");
}
