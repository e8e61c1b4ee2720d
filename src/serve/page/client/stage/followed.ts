/**
 * The job that the page shows, whose id is in the address: a reload, a bookmark or a second tab
 * shows the same one.
 */
import { computed, effect, signal } from "@preact/signals";
import { jobs, loadJob } from "../server/jobs.ts";
import { connection } from "../server/live.ts";
import { titleOf } from "../ui/format.ts";
import { report } from "../ui/messages.tsx";

const followedId = signal<string | null>(idInAddress());

/** null where none is followed, or the server has not yet answered. */
export const followed = computed(() => {
  const id = followedId.value;
  return id === null ? null : (jobs.value.get(id) ?? null);
});

export function follow(id: string | null): void {
  followedId.value = id;
  const address = id === null ? location.pathname : `#job=${encodeURIComponent(id)}`;
  if (id !== idInAddress()) history.pushState(null, "", address);
}

window.addEventListener("popstate", () => {
  followedId.value = idInAddress();
});
window.addEventListener("hashchange", () => {
  followedId.value = idInAddress();
});

// A job older than those of the snapshot is asked for.
effect(() => {
  const id = followedId.value;
  if (connection.value !== "live" || id === null || jobs.peek().has(id)) return;
  loadJob(id).catch((error: unknown) => {
    report(error);
    follow(null);
  });
});

effect(() => {
  document.title = titleOf(followed.value);
});

// --- internal ---

function idInAddress(): string | null {
  return new URLSearchParams(location.hash.slice(1)).get("job");
}
