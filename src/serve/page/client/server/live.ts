/**
 * The connection to the server: a snapshot of jobs and capabilities, then the stream of events,
 * again and again until the page goes. After a reload the stream begins where the followed job did,
 * so that its preview and its layout are there at once.
 */
import { signal } from "@preact/signals";
import { note } from "../ui/messages.tsx";
import { storedText, storeText } from "../ui/storage.ts";
import { ApiError, call, keyWanted } from "./api.ts";
import { refreshCapabilities } from "./capabilities.ts";
import { apply, loadJobs } from "./jobs.ts";
import { readEvents } from "./sse.ts";
import type { JobEvent } from "./wire.ts";

export const connection = signal<"connecting" | "live" | "lost">("connecting");

/** Keeps the page up to date until `end` aborts. */
export async function stayConnected(end: AbortSignal): Promise<void> {
  let waitMs = waitMsMin;
  while (!end.aborted) {
    try {
      await Promise.all([refreshCapabilities(), loadJobs()]);
      await listen(end, () => {
        if (connection.value === "lost") note("The server is back.");
        connection.value = "live";
        waitMs = waitMsMin;
      });
    } catch (error) {
      if (end.aborted) return;
      if (error instanceof ApiError && error.status === 401) {
        await keyGiven();
        continue;
      }
    }
    connection.value = "lost";
    await sleep(waitMs);
    waitMs = Math.min(2 * waitMs, waitMsMax);
  }
}

/** After a reload the stream is to begin with this job's events. */
export function rememberStart(jobId: string): void {
  remembered = jobId;
  const id = queuedIds.get(jobId);
  if (id !== undefined) storeText("sessionStorage", placeKey, String(id - 1));
}

// --- internal ---

const waitMsMin = 300;
const waitMsMax = 5000;
const placeKey = "basedxl.last-event";

/** Ids of the events with which jobs began. */
const queuedIds = new Map<string, number>();
let remembered: string | null = null;
/** null to begin with what happens now. */
let lastId = placeOf(storedText("sessionStorage", placeKey));

async function listen(end: AbortSignal, onOpen: () => void): Promise<void> {
  const response = await call("/events", {
    headers: {
      accept: "text/event-stream",
      ...(lastId === null ? {} : { "last-event-id": String(lastId) }),
    },
    signal: end,
  });
  onOpen();
  for await (const { id, data } of readEvents(response)) {
    lastId = placeOf(id) ?? lastId;
    const event = JSON.parse(data) as JobEvent;
    if (event.type === "queued") queuedIds.set(event.jobId, event.id);
    if (event.jobId === remembered) rememberStart(remembered);
    apply(event);
  }
}

function placeOf(id: string | null): number | null {
  return id === null || id === "" ? null : Number(id);
}

async function keyGiven(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const stop = keyWanted.subscribe((wanted) => {
    if (!wanted) resolve();
  });
  await promise;
  stop();
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
