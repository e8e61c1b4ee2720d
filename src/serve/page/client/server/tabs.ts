/**
 * The tabs of one browser: one of them holds the connection to the server and tells the others what
 * comes, since a browser has few connections to one host. When it goes, another one takes over.
 */
import type { JobEvent } from "./wire.ts";

export type Connection = "connecting" | "live" | "lost";

export type Message =
  /** Of a tab that is new. */
  | { kind: "hello" }
  /** The key was given in one tab, and holds for all. */
  | { kind: "key" }
  /** Of the tab that holds the connection. */
  | { kind: "connection"; state: Connection }
  | { kind: "events"; events: readonly JobEvent[] };

export interface Tabs {
  /** To all others. */
  tell(message: Message): void;
  /** Runs `hold` while this tab is the one; resolves when `hold` has, or `end` aborts. */
  takeTurn(hold: () => Promise<void>): Promise<void>;
}

/** null where the browser cannot do it, as over plain HTTP to another machine. */
export function joinTabs(hear: (message: Message) => void, end: AbortSignal): Tabs | null {
  const channel = openChannel();
  if (channel === null) return null;
  channel.onmessage = ({ data }: MessageEvent<Message>) => hear(data);
  end.addEventListener("abort", () => channel.close());
  return {
    tell: (message) => channel.postMessage(message),
    async takeTurn(hold) {
      try {
        await navigator.locks.request(name, { signal: end }, hold);
      } catch (error) {
        if (!end.aborted) throw error;
      }
    },
  };
}

// --- internal ---

/** Of the channel and of the lock. */
const name = "basedxl.events";

function openChannel(): BroadcastChannel | null {
  try {
    return "locks" in navigator ? new BroadcastChannel(name) : null;
  } catch {
    // A browser that keeps nothing may refuse this too.
    return null;
  }
}
