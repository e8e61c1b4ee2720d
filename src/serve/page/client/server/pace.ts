/**
 * Events at a pace that can be seen. A small model makes a hundred steps in a second: of progress
 * and previews that come together the newest counts. A tab that nobody sees shows no previews.
 */
import type { JobEvent } from "./wire.ts";

/** The page's document. */
interface Tab {
  /** True while nobody sees it. */
  readonly hidden: boolean;
  addEventListener(type: "visibilitychange", listener: () => void): void;
}

/** Takes events when they come, and hands them to `show` a few times in a second. */
export function paced(
  tab: Tab,
  show: (events: readonly JobEvent[]) => void,
): (event: JobEvent) => void {
  let waiting: JobEvent[] = [];
  let timer: ReturnType<typeof setTimeout> | null = null;
  let shownAt = Number.NEGATIVE_INFINITY;
  const flush = () => {
    if (timer !== null) clearTimeout(timer);
    timer = null;
    shownAt = performance.now();
    const { now, later } = split(newest(waiting), tab.hidden);
    waiting = later;
    if (now.length > 0) show(now);
  };
  tab.addEventListener("visibilitychange", flush);
  return (event) => {
    waiting.push(event);
    if (waiting.length >= waitingMax) waiting = newest(waiting);
    const gapMs = tab.hidden ? hiddenGapMs : seenGapMs;
    timer ??= setTimeout(flush, Math.max(0, shownAt + gapMs - performance.now()));
  };
}

/** The events that newer ones do not replace, in their order. */
export function newest(events: readonly JobEvent[]): JobEvent[] {
  const last = new Map(events.map((event, at) => [replacedKey(event), at]));
  return events.filter((event, at) => {
    const key = replacedKey(event);
    return key === null || last.get(key) === at;
  });
}

/** Whether nothing happens to the job after it. */
export function isLast({ type }: JobEvent): boolean {
  return type === "done" || type === "failed" || type === "cancelled";
}

// --- internal ---

const seenGapMs = 100;
const hiddenGapMs = 1000;
/** So that a tab that is seldom awake holds few. */
const waitingMax = 200;

/** What an event is the newest of; null where each counts. */
function replacedKey(event: JobEvent): string | null {
  if (event.type === "progress") return event.jobId;
  return event.type === "preview" ? `${event.jobId}/${event.index}` : null;
}

/** Previews of jobs that go on can wait until the tab is seen. */
function split(events: readonly JobEvent[], isHidden: boolean) {
  if (!isHidden) return { now: events, later: [] };
  const ended = new Set(events.filter(isLast).map(({ jobId }) => jobId));
  const waits = ({ type, jobId }: JobEvent) => type === "preview" && !ended.has(jobId);
  return { now: events.filter((event) => !waits(event)), later: events.filter(waits) };
}
