/**
 * Memory and time of a request before anything is loaded: of each pass, and in it of each network.
 * Operations are counted by a dry run of the real graph and priced by the rates of the device; a
 * network that is not used is not in the graph, so it costs nothing. Not counted: what steps reuse
 * of earlier ones, transfers between ranks, longer prompts than one chunk, and reading weights.
 */
import assert from "node:assert/strict";
import { type PassPlan, type Plan, type PlannedOperation, planOf } from "../native/plan.ts";
import { type NetworkUses, networksOf } from "../networks/native.ts";
import type { Network } from "../networks/network.ts";
import { type Rates, ratesOf } from "./device-rates.ts";
import { enlargements } from "./enlargements.ts";
import { handleOptionsOf, openOptionsOf, upscaleOf } from "./open-options.ts";
import type { PreparedPipeline } from "./prepare.ts";
import type { PlannedRequest } from "./request.ts";

type Stage = PlannedOperation["place"]["stage"];

/** What a network does in a stage, once or in each step. */
export interface PartEstimate {
  stage: Stage;
  /** "UNet", "VAE encoder" and the like, or kind and name of a network beside the model. */
  network: string;
  /** Whether it is done in each step, or tile. */
  inStep: boolean;
  /** How often in the whole request. */
  count: number;
  /** Of all ranks together, each time. */
  operations: number;
  flops: number;
  bytes: number;
  /** Each time; null where the device's rates are unknown. */
  seconds: number | null;
}

/** Bytes on the device that needs most; on the CPU of all ranks. */
export interface MemoryEstimate {
  /** The model's, and those that adapters make. */
  weights: number;
  /** Of the networks beside the model. */
  networks: number;
  /** Activations of the largest stage, and of each. */
  scratch: number;
  stages: Partial<Record<Stage, number>>;
  /** Of libraries, on GPUs. */
  workspace: number;
  total: number;
}

export interface PassEstimate {
  /** The image, what enlarges it, its second pass, or the refiner's part. */
  name: "image" | "upscale" | "second" | "refiner";
  /** How often it runs: in batches, or for each image. */
  runs: number;
  /** Of each run: model evaluations, or tiles. */
  steps: number;
  /** Weights of the model's networks and of those beside it, in bytes. */
  networks: { name: string; bytes: number }[];
  parts: PartEstimate[];
  memory: MemoryEstimate;
  /** Of all runs. */
  seconds: number | null;
}

export interface Estimate {
  passes: PassEstimate[];
  /** Of the pass that needs most: passes follow each other. */
  memoryBytes: number;
  /** Free now, on the CPU; null where it is not known before the device is open. */
  freeBytes: number | null;
  rates: Rates | null;
  seconds: number | null;
}

type Prepared = Pick<
  PreparedPipeline,
  "model" | "refiner" | "devices" | "machine" | "threadCount" | "rankCount" | "plan"
>;

/** Of the first request. Throws "bad-model" for files that do not fit their config. */
export function estimate(prepared: Prepared, rates = ratesOf(prepared)): Estimate {
  const passes = passesOf(prepared).map((pass) => passEstimate(pass, prepared, rates));
  const { devices, machine } = prepared;
  const isOnHost = devices.gpu === null && machine.memoryAvailable > 0;
  return {
    passes,
    memoryBytes: Math.max(...passes.map(({ memory }) => memory.total)),
    freeBytes: isOnHost ? machine.memoryAvailable : null,
    rates,
    seconds: rates && sum(passes, ({ seconds }) => seconds ?? 0),
  };
}

// --- internal ---

interface Pass {
  name: PassEstimate["name"];
  plan: Plan;
  pass: PassPlan;
  runs: number;
  /** Model evaluations by how many branches they compute; null for tiles. */
  steps: { guided: number; unguided: number; branchCount: number } | null;
  uses: NetworkUses;
  /** Names of the networks beside the model, in the order of the pass. */
  networks: string[];
}

function passesOf(prepared: Prepared): Pass[] {
  const { plan, refiner } = prepared;
  const { hires } = plan;
  const passes = imagePasses(prepared, plan, "image");
  if (hires?.upscaler.kind === "model") {
    const { network } = hires.upscaler;
    const imageCount = sum(plan.batches, ({ images }) => images.length);
    for (const size of enlargements(hires.firstSize, hires.plan.settings, network)) {
      const upscale = { ...upscaleOf(plan)!, ...size };
      const native = planOf(handleOptionsOf(openOptionsOf({ ...prepared, upscale })));
      const of = { networks: [labelOf(network)], uses: { controls: [], ipAdapters: [] } };
      const where = { plan: native, pass: passNamed(native, "upscale"), runs: imageCount };
      passes.push({ name: "upscale", ...where, steps: null, ...of });
    }
  }
  if (hires?.denoises) passes.push(...imagePasses(prepared, hires.plan, "second"));
  if (refiner !== null && plan.refined !== null) {
    passes.push(...imagePasses({ ...prepared, model: refiner }, plan.refined, "refiner"));
  }
  return passes;
}

/** As one that a session is asked for first. */
function imagePasses(prepared: Prepared, plan: PlannedRequest, name: Pass["name"]): Pass[] {
  const options = openOptionsOf({ ...prepared, plan: { ...plan, hires: null } });
  const native = planOf(handleOptionsOf(options));
  const { steps } = plan.schedule;
  const isGuided = options.guidance;
  const unguided = isGuided ? steps.filter((step) => step.guidanceFactor === 0).length : 0;
  const uses = options.uses ?? { controls: [], ipAdapters: [] };
  return [
    {
      name,
      plan: native,
      pass: passNamed(native, "image"),
      runs: plan.batches.length,
      steps: {
        guided: steps.length - unguided,
        unguided,
        branchCount: isGuided ? 1 + (options.promptCount ?? 1) : 1,
      },
      uses,
      networks: networksOf(uses).map(labelOf),
    },
  ];
}

const kinds = {
  controlnet: "ControlNet",
  t2i_adapter: "T2I-Adapter",
  ip_adapter: "IP-Adapter",
  clip_vision: "image encoder",
  upscaler: "upscaler",
} as const;

/** Files of two kinds may have the same name. */
function labelOf({ kind, name }: Network): string {
  return `${kinds[kind]} ${name}`;
}

function passNamed({ passes }: Plan, name: PassPlan["name"]): PassPlan {
  const found = passes.find((pass) => pass.name === name);
  assert(found, "a plan without its pass");
  return found;
}

function passEstimate(pass: Pass, prepared: Prepared, rates: Rates | null): PassEstimate {
  const { name, plan, runs, networks } = pass;
  const { ranks, networks: beside, tile_count: tiles } = pass.pass;
  const isShared = prepared.devices.gpu === null || prepared.devices.gpu.share;
  const each = ranks.map(({ operations }) => partsOf(operations, pass, prepared, rates));
  // Ranks with a GPU of their own work side by side; the slowest counts.
  const parts = isShared ? merged(each.flat()) : each.reduce(slower);
  const components = name === "upscale" ? [] : plan.components;
  const named = beside.map(({ weight_bytes }, i) => ({ name: networks[i]!, bytes: weight_bytes }));
  return {
    name,
    runs,
    steps: pass.steps ? pass.steps.guided + pass.steps.unguided : tiles,
    networks: [
      ...components.map((part) => ({ name: part.name, bytes: part.weight_bytes })),
      ...named,
    ],
    parts,
    memory: memoryOf(
      pass,
      isShared,
      sum(named, ({ bytes }) => bytes),
    ),
    seconds: rates && secondsOf(parts),
  };
}

function memoryOf({ plan, pass }: Pass, isShared: boolean, networks: number): MemoryEstimate {
  const { ranks } = pass;
  const all = isShared
    ? (of: (rank: (typeof ranks)[number]) => number) => sum(ranks, of)
    : (of: (rank: (typeof ranks)[number]) => number) => Math.max(...ranks.map(of));
  const stages = Object.keys(ranks[0]!.peaks) as (keyof (typeof ranks)[number]["peaks"])[];
  const peaks = stages.map((stage) => [stage, all(({ peaks }) => peaks[stage])] as const);
  const weights = plan.weight_bytes + plan.copied_bytes + plan.adapter_bytes;
  const scratch = all(({ scratch_bytes }) => scratch_bytes);
  const workspace = all(({ workspace_bytes, partial_bytes }) => workspace_bytes + partial_bytes);
  return {
    weights,
    networks,
    scratch,
    stages: Object.fromEntries(peaks.filter(([, bytes]) => bytes > 0)),
    workspace,
    total: weights + networks + scratch + workspace,
  };
}

/** The operations of a rank by network and stage, once and in steps apart. */
function partsOf(
  operations: readonly PlannedOperation[],
  pass: Pass,
  prepared: Prepared,
  rates: Rates | null,
): PartEstimate[] {
  const parts = operations.map((entry): PartEstimate => {
    const { place, cost, count } = entry;
    const each = rates && secondsOfOperation(entry, rates, prepared);
    return {
      stage: place.stage,
      network: networkOf(place, pass),
      inStep: place.in_step,
      count: pass.runs * (place.in_step ? stepsOf(place.network, pass) : 1),
      operations: count,
      flops: count * cost.flops,
      bytes: count * cost.bytes,
      seconds: each && count * each,
    };
  });
  return merged(parts);
}

function networkOf({ stage, network }: PlannedOperation["place"], { networks }: Pass): string {
  if (network > 0) return networks[network - 1]!;
  switch (stage) {
    case "text":
      return "text encoders";
    case "encode":
      return "VAE encoder";
    case "decode":
      return "VAE decoder";
    default:
      return "UNet";
  }
}

/** How often a network runs in a pass: in the steps of its uses, or for a rank's share of tiles. */
function stepsOf(network: number, { pass, steps, uses }: Pass): number {
  if (steps === null) return pass.tile_count / pass.ranks.length;
  const { guided, unguided, branchCount } = steps;
  const all = guided + unguided;
  // Outside the guidance window there is one branch.
  const equivalent = guided + unguided / branchCount;
  const own = uses.controls.filter((use) => networksOf(uses).indexOf(use.network) === network - 1);
  if (network === 0 || own.length === 0) return equivalent;
  const active = sum(own, ({ stepFirst, stepEnd }) => Math.min(all, stepEnd) - stepFirst);
  return (equivalent * active) / (own.length * all);
}

/** Adds up what is of the same part. */
function merged(parts: readonly PartEstimate[]): PartEstimate[] {
  const known = new Map<string, PartEstimate>();
  for (const part of parts) {
    const key = `${part.stage} ${part.network} ${part.inStep}`;
    const before = known.get(key);
    if (before === undefined) {
      known.set(key, { ...part });
      continue;
    }
    before.operations += part.operations;
    before.flops += part.flops;
    before.bytes += part.bytes;
    if (before.seconds !== null && part.seconds !== null) before.seconds += part.seconds;
  }
  return [...known.values()];
}

function slower(a: PartEstimate[], b: PartEstimate[]): PartEstimate[] {
  const worth = (parts: PartEstimate[]) => secondsOf(parts) || sum(parts, ({ flops }) => flops);
  return worth(b) > worth(a) ? b : a;
}

function secondsOf(parts: readonly PartEstimate[]): number {
  return sum(parts, ({ count, seconds }) => count * (seconds ?? 0));
}

/** Whichever of products and memory takes longer; what else is computed hides behind these. */
function secondsOfOperation(
  { place, operation, cost }: PlannedOperation,
  rates: Rates,
  { devices }: Prepared,
): number {
  const onCpu = devices.gpu === null;
  const isLinear = operation.op === "linear" || operation.op === "linear_geglu";
  const isModelStep = place.network === 0 && place.in_step;
  const inInt8 = operation.int8 || (devices.dtype === "int8" && isLinear && isModelStep);
  const factor = (inInt8 ? int8Factor : 1) * (onCpu ? (cpuFactors[operation.op] ?? 1) : 1);
  const products = cost.flops / (factor * rates.flopsPerSecond);
  return (
    Math.max(products, cost.bytes / rates.bytesPerSecond) + cost.launches * rates.launchSeconds
  );
}

/** Times that products in int8 are faster than those that are measured: `bench int8`. */
const int8Factor = 1.9;

/** Rates of other operations on the CPU, of that of linear layers: `bench cpu --only ops`. */
const cpuFactors: Partial<Record<string, number>> = { conv2d: 0.87, attention: 0.6 };

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}
