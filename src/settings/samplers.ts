/**
 * The samplers: their files, their names here and elsewhere, and what each is good for. A file in
 * `samplers/` and a row here are a sampler; tests go through the rows.
 */
import { ddim } from "../samplers/ddim.ts";
import { ddpm } from "../samplers/ddpm.ts";
import { deis } from "../samplers/deis.ts";
import { dpm2, dpm2Ancestral } from "../samplers/dpm2.ts";
import { dpmpp2sAncestral } from "../samplers/dpmpp-2s-ancestral.ts";
import {
  dpmpp2m,
  dpmpp2mSde,
  dpmpp2mSdeHeun,
  dpmpp3m,
  dpmpp3mSde,
} from "../samplers/dpmpp-multistep.ts";
import { dpmppSde } from "../samplers/dpmpp-sde.ts";
import { dpmpp2s } from "../samplers/dpmpp-singlestep.ts";
import { erSde } from "../samplers/er-sde.ts";
import { euler } from "../samplers/euler.ts";
import { eulerAncestral } from "../samplers/euler-ancestral.ts";
import { eulerAncestralCfgPp, eulerCfgPp } from "../samplers/euler-cfg-pp.ts";
import { gradientEstimation } from "../samplers/gradient-estimation.ts";
import { heun } from "../samplers/heun.ts";
import { heunpp2 } from "../samplers/heunpp2.ts";
import { ipndm, ipndmV } from "../samplers/ipndm.ts";
import { lcm } from "../samplers/lcm.ts";
import { lms } from "../samplers/lms.ts";
import type { SigmaKind } from "../samplers/names.ts";
import { pndm } from "../samplers/pndm.ts";
import { resMultistep, resMultistepAncestral } from "../samplers/res-multistep.ts";
import { seeds2 } from "../samplers/seeds-2.ts";
import { tcd } from "../samplers/tcd.ts";
import type { Sampler } from "../samplers/types.ts";
import { unipc, unipcBh2 } from "../samplers/unipc.ts";

interface SamplerRow {
  /** Its coefficients. */
  sampler: Sampler;
  /** The class of diffusers that it is equal to; several rows may share one. */
  className: string | null;
  /** A1111's name, then others; case, spaces, "-" and "_" do not matter, "+" is "p". */
  others: readonly [string, ...string[]];
  /** What it is, in one line. */
  text: string;
  /** The noise levels that A1111's schedule type "Automatic" means; normal where it is left out. */
  automatic?: SigmaKind;
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
    automatic: "karras",
  },
  dpmpp_2m_sde: {
    sampler: dpmpp2mSde,
    className: "DPMSolverMultistepScheduler",
    others: ["DPM++ 2M SDE", "dpmpp_2m_sde_gpu"],
    text: "the same with fresh noise in each step: more detail",
    automatic: "exponential",
  },
  dpmpp_2m_sde_heun: {
    sampler: dpmpp2mSdeHeun,
    className: null,
    others: ["DPM++ 2M SDE Heun", "dpmpp_2m_sde_heun_gpu"],
    text: "dpmpp_2m_sde with Heun's weights of the last two outputs",
    automatic: "exponential",
  },
  dpmpp_3m: {
    sampler: dpmpp3m,
    className: "DPMSolverMultistepScheduler",
    others: ["DPM++ 3M"],
    text: "third order from the last three outputs",
  },
  dpmpp_3m_sde: {
    sampler: dpmpp3mSde,
    className: null,
    others: ["DPM++ 3M SDE", "dpmpp_3m_sde_gpu"],
    text: "third order with fresh noise: 30 steps and more",
    automatic: "exponential",
  },
  dpmpp_sde: {
    sampler: dpmppSde,
    className: null,
    others: ["DPM++ SDE", "dpmpp_sde_gpu"],
    text: "two evaluations and two noises per step: few steps, as for Turbo merges",
    automatic: "karras",
  },
  dpmpp_2s_a: {
    sampler: dpmpp2sAncestral,
    className: null,
    others: ["DPM++ 2S a", "dpmpp_2s_ancestral"],
    text: "DPM++ by the middle of each step, with fresh noise; two evaluations",
    automatic: "karras",
  },
  unipc: {
    sampler: unipc,
    className: "UniPCMultistepScheduler",
    others: ["UniPC", "uni_pc"],
    text: "predictor and corrector; 10 to 20 steps",
  },
  unipc_bh2: {
    sampler: unipcBh2,
    className: null,
    others: ["UniPC bh2", "uni_pc_bh2"],
    text: "unipc with the weights bh2, whatever the config or --compat says",
  },
  heun: {
    sampler: heun,
    className: "HeunDiscreteScheduler",
    others: ["Heun"],
    text: "second order, two evaluations per step: exact and slow",
  },
  heunpp2: {
    sampler: heunpp2,
    className: null,
    others: ["HeunPP2"],
    text: "Heun over three levels, three evaluations per step",
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
    automatic: "karras",
  },
  dpm2_a: {
    sampler: dpm2Ancestral,
    className: "KDPM2AncestralDiscreteScheduler",
    others: ["DPM2 a", "dpm_2_ancestral"],
    text: "midpoint method with fresh noise in each step",
    automatic: "karras",
  },
  res_multistep: {
    sampler: resMultistep,
    className: null,
    others: ["Res Multistep"],
    text: "exponential integrator over the last two outputs, no noise",
  },
  res_multistep_a: {
    sampler: resMultistepAncestral,
    className: null,
    others: ["res_multistep_ancestral"],
    text: "the same with fresh noise in each step",
  },
  er_sde: {
    sampler: erSde,
    className: null,
    others: ["ER SDE"],
    text: "third order with a noise scale of its own",
  },
  seeds_2: {
    sampler: seeds2,
    className: null,
    others: ["SEEDS-2"],
    text: "exponential integrator with noise, two evaluations per step",
  },
  ipndm: {
    sampler: ipndm,
    className: null,
    others: ["iPNDM"],
    text: "linear multistep with the weights of even steps",
  },
  ipndm_v: {
    sampler: ipndmV,
    className: null,
    others: ["iPNDM-V"],
    text: "the same with the weights of the steps as they are",
  },
  gradient_estimation: {
    sampler: gradientEstimation,
    className: null,
    others: ["Gradient Estimation"],
    text: "Euler that goes on by the last change of the direction",
  },
  euler_cfg_pp: {
    sampler: eulerCfgPp,
    className: null,
    others: ["Euler CFG++"],
    text: "Euler along the negative branch's noise; guidance 0.6 to 2",
  },
  euler_a_cfg_pp: {
    sampler: eulerAncestralCfgPp,
    className: null,
    others: ["Euler a CFG++", "euler_ancestral_cfg_pp"],
    text: "the same with fresh noise in each step",
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
    text: "linear multistep (PLMS): an evaluation more than steps, or 9 by Runge-Kutta",
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

/** A sampler by any of its names, and what the name asks for beside it. */
interface NamedSampler {
  name: Scheduler;
  /** Those of "DPM++ 2M Karras". */
  sigmas?: SigmaKind;
  /** ComfyUI's samplers ending in _gpu take the Brownian path's numbers from a GPU. */
  noiseSampler?: "brownian_gpu";
}

/** What `text` names, in the spelling of diffusers, A1111, ComfyUI or here; null for nothing. */
export function samplerNamed(text: string): NamedSampler | null {
  const key = normalized(text);
  const whole = samplerSpelled(key);
  if (whole) return whole;
  for (const [words, sigmas] of scheduleWords) {
    const base = key.endsWith(words) ? samplerSpelled(key.slice(0, -words.length)) : null;
    if (base) return { ...base, sigmas };
  }
  return null;
}

/** The noise levels that A1111's "Schedule type" or ComfyUI's scheduler of that name is. */
export function sigmasNamed(text: string): SigmaKind | null {
  const key = normalized(text);
  return scheduleWords.find(([words]) => words === key)?.[1] ?? null;
}

/** The noise levels of a sampler where A1111's schedule type is "Automatic". */
export function automaticSigmas(name: Scheduler): SigmaKind {
  const { automatic = "normal" }: SamplerRow = samplerRows[name];
  return automatic;
}

/** One line per sampler: its name, what it is, and its other names. */
export function describeSamplers(): string {
  const width = Math.max(...schedulers.map(({ length }) => length));
  const lines = schedulers.map((name) => {
    const { className, others, text }: SamplerRow = samplerRows[name];
    return `${name.padEnd(width)}  ${text} (${[className ?? [], ...others].flat().join(", ")})`;
  });
  return lines.join("\n");
}

// --- internal ---

function samplerSpelled(key: string): NamedSampler | null {
  const name = spellings.get(key);
  if (name === undefined) return null;
  return key.endsWith("gpu") ? { name, noiseSampler: "brownian_gpu" } : { name };
}

/** Words for noise levels without spaces and signs; a word that ends another stands after it. */
const scheduleWords: readonly (readonly [string, SigmaKind])[] = [
  ["karras", "karras"],
  ["exponential", "exponential"],
  ["betatimesteps", "beta_timesteps"],
  ["beta", "beta"],
  ["sgmuniform", "sgm_uniform"],
  ["ddimuniform", "ddim_uniform"],
  ["ddim", "ddim_uniform"],
  ["uniform", "normal"],
  ["normal", "normal"],
  ["simple", "simple"],
  ["linearquadratic", "linear_quadratic"],
  ["kloptimal", "kl_optimal"],
  ["alignyoursteps", "ays"],
  ["ays", "ays"],
];

const spellings = new Map<string, Scheduler>();
for (const name of schedulers) {
  const { className, others }: SamplerRow = samplerRows[name];
  const classNames = className === null ? [] : [className, className.replace("Scheduler", "")];
  for (const each of [name, ...classNames, ...others]) {
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
