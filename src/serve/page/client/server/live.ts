/**
 * The connection to the server: capabilities, then the stream of events with a snapshot of jobs at
 * its beginning, again and again until the page goes. One tab holds it for all (tabs.ts). After a
 * reload the stream begins where the followed job did, so that its preview and its layout are there
 * at once.
 */
import { batch, signal } from "@preact/signals";
import { note } from "../ui/messages.tsx";
import { storedText, storeText } from "../ui/storage.ts";
import { ApiError, call, keyWanted } from "./api.ts";
import { refreshCapabilities } from "./capabilities.ts";
import { apply, loadJobs } from "./jobs.ts";
import { isLast, newest, paced } from "./pace.ts";
import { readEvents } from "./sse.ts";
import { type Connection, joinTabs, type Message, type Tabs } from "./tabs.ts";
import type { JobEvent } from "./wire.ts";

export const connection = signal<Connection>("connecting");

/** Keeps the page up to date until `end` aborts. */
export async function stayConnected(end: AbortSignal): Promise<void> {
  tabs = joinTabs((message) => hear(message, end), end);
  if (tabs === null) return await hold(end);
  let hadKey = !keyWanted.value;
  keyWanted.subscribe((wanted) => {
    if (!wanted && !hadKey) tabs?.tell({ kind: "key" });
    hadKey = !wanted;
  });
  tabs.tell({ kind: "hello" });
  await tabs.takeTurn(() => hold(end));
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

/** null where each tab is on its own. */
let tabs: Tabs | null = null;
let holds = false;
/** What a new tab must hear to show the jobs that run: layouts and previews. */
const latest = new Map<string, JobEvent>();
/** Ids of the events with which jobs began. */
const queuedIds = new Map<string, number>();
let remembered: string | null = null;
/** null to begin with what happens now. */
let lastId = placeOf(storedText("sessionStorage", placeKey));
const show = paced(document, (events) => batch(() => events.forEach(apply)));

/** Asks the server and listens, again and again. */
async function hold(end: AbortSignal): Promise<void> {
  holds = true;
  let waitMs = waitMsMin;
  while (!end.aborted) {
    try {
      await withKey(refreshCapabilities);
      await listen(end, async () => {
        // Now, since what happens between a snapshot and the stream would be in neither.
        await loadJobs();
        become("live");
        waitMs = waitMsMin;
      });
    } catch {
      if (end.aborted) return;
    }
    become("lost");
    await sleep(waitMs);
    waitMs = Math.min(2 * waitMs, waitMsMax);
  }
}

/** What the other tabs say. */
function hear(message: Message, end: AbortSignal): void {
  if (message.kind === "events") for (const event of message.events) take(event);
  else if (message.kind === "key") keyWanted.value = false;
  else if (message.kind === "hello") {
    if (!holds) return;
    tabs?.tell({ kind: "connection", state: connection.value });
    tabs?.tell({ kind: "events", events: [...latest.values()] });
  } else if (message.state !== "live" || connection.value === "live") become(message.state);
  else {
    const shown = () => !end.aborted && !holds && become("live");
    withKey(() => Promise.all([refreshCapabilities(), loadJobs()])).then(shown, () => {});
  }
}

function become(state: Connection): void {
  if (state === "live" && connection.value === "lost") note("The server is back.");
  connection.value = state;
  if (holds) tabs?.tell({ kind: "connection", state });
}

/** Asks, again once the key is given where one is wanted. */
async function withKey(ask: () => Promise<unknown>): Promise<void> {
  for (;;) {
    try {
      await ask();
      return;
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 401)) throw error;
      await keyGiven();
    }
  }
}

async function listen(end: AbortSignal, onOpen: () => Promise<void>): Promise<void> {
  const response = await call("/events", {
    headers: {
      accept: "text/event-stream",
      ...(lastId === null ? {} : { "last-event-id": String(lastId) }),
    },
    signal: end,
  });
  await onOpen();
  for await (const together of readEvents(response)) {
    const events = newest(together.map(({ data }) => JSON.parse(data) as JobEvent));
    tabs?.tell({ kind: "events", events });
    for (const event of events) take(event);
    lastId = events.at(-1)?.id ?? lastId;
  }
}

function take(event: JobEvent): void {
  const { id, type, jobId } = event;
  lastId = Math.max(lastId ?? 0, id);
  if (type === "queued") queuedIds.set(jobId, id);
  if (jobId === remembered) rememberStart(jobId);
  if (type === "start") latest.set(`${jobId}/`, event);
  else if (type === "preview") latest.set(`${jobId}/${event.index}`, event);
  else if (isLast(event)) forget(jobId);
  show(event);
}

function forget(jobId: string): void {
  for (const key of latest.keys()) if (key.startsWith(`${jobId}/`)) latest.delete(key);
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
