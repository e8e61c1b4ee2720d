/**
 * A job that has not ended: what is kept of it, and what changes by the second.
 */
import type { CatalogModel } from "../catalog-model.ts";
import { follow } from "../share.ts";
import type { Waiting } from "./queue.ts";
import type { StoredJob } from "./store.ts";
import type { JobError, JobProgress, JobState, JobView } from "./types.ts";

export class LiveJob implements Waiting {
  progress: JobProgress | null = null;
  /** Who cancelled it. */
  cancelledBy: string | null = null;
  /** Called when it is cancelled while it runs. */
  onCancel: () => void = () => {};
  private readonly clock = new StepClock();

  constructor(
    readonly stored: StoredJob,
    readonly model: CatalogModel,
  ) {}

  get id(): string {
    return this.stored.id;
  }

  get client(): string {
    return this.stored.spec.client;
  }

  get priority(): number {
    return this.stored.spec.priority ?? 0;
  }

  view(position: number | null): JobView {
    return { ...this.stored, position, progress: this.progress };
  }

  begin(): void {
    const { stored } = this;
    Object.assign(stored, { state: "running", startedAt: Date.now() });
    stored.attempts += 1;
  }

  /** It waits again. */
  requeue(attempts: number): void {
    Object.assign(this.stored, { state: "queued", startedAt: null, attempts });
    this.progress = null;
  }

  /** Returns the time of its end. */
  end(state: JobState, { code, message }: Partial<JobError>): number {
    const endedAt = Date.now();
    const error = code === undefined || message === undefined ? null : { code, message };
    Object.assign(this.stored, { state, endedAt, error });
    this.progress = null;
    return endedAt;
  }

  /** False where the same was said of it before. */
  warn(message: string): boolean {
    const { warnings } = this.stored;
    if (warnings.includes(message)) return false;
    warnings.push(message);
    return true;
  }

  /** Takes progress over; false where nothing has changed. */
  advance(
    { stage, step, steps, pass }: Pick<JobProgress, "stage" | "step" | "steps" | "pass">,
    batchesLeft: number,
  ): boolean {
    const { progress } = this;
    const isSame = progress?.stage === stage && progress.step === step && progress.steps === steps;
    if (isSame && progress.pass?.index === pass?.index) return false;
    const secondsPerStep = this.clock.advance(stage, step);
    const passesLeft = pass === undefined ? 0 : pass.count - pass.index;
    const stepsLeft = steps - step + (batchesLeft + passesLeft) * steps;
    const secondsLeft = secondsPerStep === null ? null : rounded(stepsLeft * secondsPerStep);
    this.progress = { stage, step, steps, secondsPerStep, secondsLeft, ...(pass && { pass }) };
    return true;
  }

  /** Takes over progress that was measured elsewhere. */
  follow(progress: JobProgress): void {
    this.clock.advance(progress.stage, progress.step);
    this.progress = progress;
  }

  /** Seconds of the step that ended last; null before the first. */
  lastStepSeconds(): number | null {
    return this.clock.last;
  }
}

// --- internal ---

/** How long steps take. */
class StepClock {
  last: number | null = null;
  private mean: number | undefined;
  private step = 0;
  private stepMs = 0;

  /** Seconds per step; null before one has ended. */
  advance(stage: string, step: number): number | null {
    const nowMs = performance.now();
    if (stage === "denoise" && step > this.step) {
      this.last = (nowMs - this.stepMs) / 1000 / (step - this.step);
      this.mean = follow(this.mean, this.last);
    } else this.last = null;
    this.step = stage === "denoise" ? step : 0;
    this.stepMs = nowMs;
    return this.mean === undefined ? null : rounded(this.mean);
  }
}

/** To milliseconds. */
function rounded(seconds: number): number {
  return Math.round(seconds * 1000) / 1000;
}
