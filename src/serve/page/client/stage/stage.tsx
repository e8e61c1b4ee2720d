/**
 * The followed job: its images as they come, what it does, and the three ways to cancel.
 */
import { useSignal } from "@preact/signals";
import { open } from "../gallery/viewer.tsx";
import {
  activeJobs,
  cancelJob,
  cancelMany,
  isActive,
  layouts,
  pictureOf,
  waitingCount,
} from "../server/jobs.ts";
import type { Job } from "../server/wire.ts";
import { progressShare, progressText } from "../ui/format.ts";
import { Icon } from "../ui/icons.tsx";
import { attempt } from "../ui/messages.tsx";
import { followed } from "./followed.ts";

export function Stage() {
  const job = followed.value;
  if (job === null) return <Empty />;
  const { width = 1, height = 1 } = job.spec.request;
  return (
    <section
      class="stage"
      aria-label="Current job"
      ref={(stage) => stage?.style.setProperty("--ratio", `${width} / ${height}`)}
    >
      <Pictures job={job} />
      <Progress job={job} />
      {job.error && (
        <p class="failure" role="alert">
          {job.error.message}
        </p>
      )}
      {job.warnings.map((warning) => (
        <p key={warning} class="hint">
          {warning}
        </p>
      ))}
    </section>
  );
}

/** Which jobs are cancelled: this one, what is left, all. */
export function CancelButtons({ job }: { job: Job | null }) {
  const count = activeJobs.value.length;
  return (
    <div class="cancel">
      {job && isActive(job) && (
        <button type="button" onClick={() => attempt(() => cancelJob(job.id))}>
          Cancel this
        </button>
      )}
      {waitingCount.value > 0 && (
        <button type="button" onClick={() => attempt(() => cancelMany("rest"))}>
          Cancel {waitingCount.value} waiting
        </button>
      )}
      {count > 1 && (
        <button type="button" onClick={() => attempt(() => cancelMany("all"))}>
          Cancel all
        </button>
      )}
    </div>
  );
}

// --- internal ---

function Empty() {
  return (
    <section class="stage empty" aria-label="Current job">
      <Icon name="image" />
      <p>Images appear here, as they come.</p>
      <p class="hint">
        Drop one anywhere on the page to take over its settings: those of A1111, ComfyUI, SwarmUI
        and Fooocus are read too.
      </p>
    </section>
  );
}

function Pictures({ job }: { job: Job }) {
  const chosen = useSignal(0);
  const { num_images: count = 1 } = job.spec.request;
  const indices = Array.from({ length: Number(count) }, (_, index) => index);
  const index = Math.min(chosen.value, indices.length - 1);
  const file = job.images.find((image) => image.index === index)?.file;
  const source = pictureOf(job, index) ?? indices.map((each) => pictureOf(job, each)).find(Boolean);
  return (
    <>
      <button
        type="button"
        class="picture"
        disabled={file === undefined}
        aria-label={file === undefined ? "No image yet" : "Show the image large"}
        onClick={() => file !== undefined && open(file)}
      >
        {source ? (
          <img src={source} alt={altOf(job)} />
        ) : (
          <span class={isActive(job) ? "waiting" : ""} />
        )}
      </button>
      {indices.length > 1 && (
        <div class="strip">
          {indices.map((each) => {
            const picture = pictureOf(job, each);
            return (
              <button
                key={each}
                type="button"
                aria-pressed={each === index}
                aria-label={`Image ${each + 1} of ${indices.length}`}
                onClick={() => (chosen.value = each)}
              >
                {picture ? <img src={picture} alt="" /> : <span>{each + 1}</span>}
              </button>
            );
          })}
        </div>
      )}
    </>
  );
}

function Progress({ job }: { job: Job }) {
  const share = progressShare(job);
  const text = progressText(job);
  const { seed } = job.images.at(-1) ?? {};
  return (
    <div class="progress">
      {isActive(job) && (
        <progress aria-label="Progress" {...(share === null ? {} : { max: 1, value: share })} />
      )}
      <div class="progress-row">
        <p class="progress-text">
          <span>{text}</span>
          {seed !== undefined && <span class="quiet">Seed {seed}</span>}
          {layouts.value.has(job.id) && <span class="quiet">{layouts.value.get(job.id)}</span>}
        </p>
        <CancelButtons job={job} />
      </div>
    </div>
  );
}

function altOf({ spec: { request } }: Job): string {
  return typeof request.prompt === "string" ? request.prompt : "Generated image";
}
