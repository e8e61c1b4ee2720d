/**
 * Runs a job of a base model and a refiner: all batches of the one, then all of the other. Events
 * are those of one job, whose steps are counted together.
 */
import assert from "node:assert/strict";
import type { PipelineEvent } from "./events.ts";
import {
  addRanks,
  addTimings,
  type GenerateResult,
  type JobOptions,
  type JobSession,
  runJob,
} from "./job.ts";
import type { PlannedRequest } from "./request.ts";

export interface RefinedSessions {
  base: JobSession;
  refiner: JobSession;
}

export async function runRefinedJob(
  sessions: RefinedSessions,
  plan: PlannedRequest & { refined: PlannedRequest },
  options: JobOptions,
): Promise<GenerateResult> {
  const { refined } = plan;
  const { prepared, onEvent } = options;
  assert(prepared.refiner, "a refiner's job without a refiner");
  const [before, after] = [plan, refined].map(({ schedule }) => schedule.steps.length);
  const counted = (first: number, count: number) => async (event: PipelineEvent) => {
    if (event.type === "start" || event.type === "warning") {
      if (first === 0) await onEvent(event);
    } else if (event.type === "progress" || event.type === "preview") {
      const steps = { stepIndex: event.stepIndex + first };
      const of = event.type === "progress" ? { stepCount: event.stepCount + count } : {};
      await onEvent({ ...event, ...steps, ...of });
    } else await onEvent(event);
  };
  const base = await runJob(sessions.base, plan, { ...options, onEvent: counted(0, after!) });
  const { latents: values, latentShape: shape, noiseCount } = base;
  assert(values, "a base model's job without latents");
  const last = await runJob(
    sessions.refiner,
    { ...refined, warnings: [], latents: { values, shape, noiseCount } },
    {
      ...options,
      warnings: [],
      prepared: { ...prepared, model: prepared.refiner },
      onEvent: counted(before!, before!),
      origin: { prepared, plan },
    },
  );
  addTimings(base.timings, last.timings);
  addRanks(base.ranks, last.ranks);
  const { images, latents, latentShape } = last;
  return { ...base, images, latents, latentShape, noiseCount: last.noiseCount };
}
