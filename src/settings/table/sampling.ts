/**
 * Settings (rows of ../table.ts): steps, sampler and noise levels.
 */
import { stepCountMax } from "../../native/abi.ts";
import {
  firstSigmas,
  recipeNames,
  samplerNamed,
  schedulers,
  sigmaKinds,
  timestepRoundings,
  timestepSpacings,
} from "../names.ts";
import type { Setting } from "../setting.ts";

export const samplingSettings = {
  recipe: {
    kind: "choice",
    flag: "recipe",
    names: recipeNames,
    group: "Sampling",
    hint: "NAME",
    help:
      "Steps, sampler, noise levels and guidance of a few-step LoRA or model: {names}. Flags for " +
      "these override it; the LoRA itself is --lora's. On several ranks it also takes " +
      "--sync-mode full_sync for 8 steps or fewer. Default: none.",
    scope: "request",
    processes: "same",
    // What it sets is recorded.
    unrecorded: true,
    json: "recipe",
  },
  stepCount: {
    kind: "whole",
    flag: "num-inference-steps",
    aliases: ["steps"],
    min: 1,
    max: stepCountMax,
    group: "Sampling",
    hint: "N",
    help: "Steps, {range}. Default: the model's own, else 50.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "steps",
  },
  scheduler: {
    kind: "choice",
    flag: "scheduler",
    names: schedulers,
    alsoAccepts: (text: string) => samplerNamed(text) !== null,
    group: "Sampling",
    hint: "NAME",
    help:
      "Sampler: {names}. Names of diffusers, A1111 and ComfyUI will do too, as in " +
      '"DPM++ 2M Karras"; --list-schedulers explains all. Default: the model\'s own; with ' +
      "--compat a1111 dpmpp_2m, with comfyui euler.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "scheduler",
  },
  sigmas: {
    kind: "choice",
    flag: "sigmas",
    names: sigmaKinds,
    orNumbers: {
      ...{ whole: false, min: 0, max: 1_000_000 },
      ...{ countMin: 2, countMax: stepCountMax + 1 },
    },
    group: "Sampling",
    hint: "NAME|LIST",
    help:
      "Spacing of the noise levels: {names}; normal is that of the timesteps, beta is diffusers' " +
      "and A1111's and beta_timesteps ComfyUI's, ays Align Your Steps, lcm Fooocus'. With " +
      "--compat they are those of the tool. Or the levels themselves with the final one, as in " +
      "14.6,3,0.5,0, which set the steps. Default: as the scheduler's name, --compat or the " +
      "model's config says.",
    scope: "request",
    processes: "same",
    json: "sigmas",
  },
  timesteps: {
    kind: "numbers",
    whole: true,
    min: 0,
    max: 999,
    countMin: 1,
    countMax: stepCountMax,
    flag: "timesteps",
    group: "Sampling",
    hint: "LIST",
    help:
      "The training timesteps to visit, {range} and falling, as in 999,749,499,249; they set the " +
      "steps. Default: as the spacing says.",
    scope: "request",
    processes: "same",
    json: "timesteps",
  },
  useKarrasSigmas: {
    kind: "boolean",
    flag: "use-karras-sigmas",
    group: "Sampling",
    help: "The same as --sigmas karras; --no-use-karras-sigmas for not, whatever the config says.",
    scope: "request",
    processes: "same",
    json: "use_karras_sigmas",
  },
  timestepSpacing: {
    kind: "choice",
    flag: "timestep-spacing",
    names: timestepSpacings,
    group: "Sampling",
    hint: "NAME",
    help: "{names}. Default: as the model's config says.",
    scope: "request",
    processes: "same",
    json: "timestep_spacing",
  },
  timestepRounding: {
    kind: "choice",
    flag: "timestep-rounding",
    names: timestepRoundings,
    default: "auto",
    group: "Sampling",
    hint: "NAME",
    help:
      "What the model is told at noise levels between two of its timesteps: none for the " +
      "fraction, nearest for the nearer one, auto for what the sampler does elsewhere: Euler and " +
      "A1111 take the fraction, ComfyUI the nearest. Default: auto.",
    scope: "request",
    processes: "same",
    json: "timestep_rounding",
  },
  firstSigma: {
    kind: "choice",
    flag: "first-sigma",
    names: firstSigmas,
    default: "auto",
    group: "Sampling",
    hint: "NAME",
    help:
      "What the first noise is multiplied by: sigma for the first noise level, as in A1111, sqrt " +
      "for sqrt(1 + sigma^2), as in ComfyUI where that is the model's largest. Default: auto, as " +
      "the sampler and its spacing do elsewhere.",
    scope: "request",
    processes: "same",
    json: "first_sigma",
  },
  eta: {
    kind: "number",
    flag: "eta",
    min: 0,
    max: 1,
    group: "Sampling",
    hint: "X",
    help:
      "Share of fresh noise in the steps of ancestral and SDE samplers, ddim and tcd, {range}. " +
      "Default: 1, for ddim 0 and for tcd 0.3.",
    scope: "request",
    processes: "same",
    json: "eta",
  },
  sNoise: {
    kind: "number",
    flag: "s-noise",
    min: 0,
    max: 10,
    group: "Sampling",
    hint: "X",
    help: "What the fresh noise of steps is multiplied by, {range}. Default: 1.",
    scope: "request",
    processes: "same",
    json: "s_noise",
  },
} as const satisfies Readonly<Record<string, Setting>>;
