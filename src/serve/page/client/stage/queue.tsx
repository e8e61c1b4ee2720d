/**
 * Jobs that run and wait, of all tabs and clients.
 */
import { activeJobs, cancelJob } from "../server/jobs.ts";
import { progressText } from "../ui/format.ts";
import { IconButton } from "../ui/icons.tsx";
import { attempt } from "../ui/messages.tsx";
import { follow, followed } from "./followed.ts";
import { CancelButtons } from "./stage.tsx";

export function Queue() {
  const active = activeJobs.value;
  const isShownAbove = active.length === 1 && active[0] === followed.value;
  if (active.length === 0 || isShownAbove) return null;
  return (
    <section class="queue" aria-labelledby="queue-title">
      <div class="section-row">
        <h2 id="queue-title">Queue</h2>
        {!followed.value && <CancelButtons job={null} />}
      </div>
      <ol>
        {active.map((job) => (
          <li key={job.id} aria-current={job === followed.value}>
            <button
              type="button"
              class="link"
              onClick={() => {
                follow(job.id);
                scrollTo({ top: 0 });
              }}
            >
              <span class="name">
                {String(job.spec.request.prompt ?? "The model's own prompt")}
              </span>
              <span class="quiet">{progressText(job)}</span>
            </button>
            <IconButton
              icon="close"
              label="Cancel this job"
              title="Cancel this job"
              onClick={() => attempt(() => cancelJob(job.id))}
            />
          </li>
        ))}
      </ol>
    </section>
  );
}
