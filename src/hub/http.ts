/**
 * Requests to the hub: redirects followed by hand, so that the token goes to the hub's own host
 * alone; an answer or a byte awaited for a limited time; failures told apart by what may help.
 * `Interrupted` may be tried again (`Retries`), any other error is final.
 */
import { BasedXLError, cancelled, stopIfAborted } from "../errors.ts";
import { networkRefusal, redirectRefusal, statusRefusal, type Wanted } from "./refusals.ts";
import type { HubSettings } from "./settings.ts";

/** What a request needs to know of the command that makes it. */
export interface HubClient {
  settings: HubSettings;
  /** Stops every request, which then throws "cancelled". */
  signal: AbortSignal | undefined;
  /** Gets a sentence where something takes longer than expected. */
  say(line: string): void;
}

/** A failure that the next attempt may not have. */
export class Interrupted extends Error {
  constructor(
    /** The error for the user where no attempt succeeds. */
    readonly refusal: BasedXLError,
    /** How long the server asks to wait; null where it does not say. */
    readonly waitMs: number | null = null,
    /** True where an attempt a second later will hardly fare better: no network, no such host. */
    readonly isHard = false,
  ) {
    super(refusal.message);
  }
}

/** Counts attempts without success, and waits longer before each. */
export class Retries {
  private failures = 0;

  constructor(
    private readonly client: HubClient,
    private readonly failuresMax = 5,
  ) {}

  /** To be called when something arrived: the next failure counts as the first. */
  reset(): void {
    this.failures = 0;
  }

  /** Waits before the next attempt; throws what is final. */
  async after(error: unknown): Promise<void> {
    if (!(error instanceof Interrupted)) throw error;
    this.failures += error.isHard ? 2 : 1;
    const { settings, signal, say } = this.client;
    const waitMs = error.waitMs ?? settings.pauseMs * 2 ** (this.failures - 1);
    if (this.failures >= this.failuresMax || waitMs > waitMsMax) throw error.refusal;
    if (waitMs > 5000) say(`${error.refusal.message} Waiting ${Math.ceil(waitMs / 1000)} s.`);
    await pause(waitMs, signal);
  }
}

/** An answer whose body is still to come. `chunks` or `close` ends it. */
export interface Transfer {
  status: number;
  headers: Headers;
  /** The hub's own name of the content, where it sent the request on to another host. */
  linkedEtag: string | null;
  /** The body as it arrives. Throws `Interrupted` where it breaks off or stalls. */
  chunks(): AsyncGenerator<Uint8Array>;
  close(): void;
}

/**
 * One request for `url`. Statuses over 299 are errors, except those in `accepted`. Throws
 * `Interrupted` where another attempt may succeed.
 */
export async function openTransfer(
  client: HubClient,
  url: string,
  wanted: Wanted,
  headers: Record<string, string> = {},
  accepted: readonly number[] = [],
): Promise<Transfer> {
  const { settings, signal } = client;
  stopIfAborted(signal);
  const watch = new Watch(client, url);
  let address = new URL(url);
  let linkedEtag: string | null = null;
  try {
    for (let hops = 0; ; hops++) {
      const response = await watch.during(
        fetch(address, {
          headers: { ...headers, ...fixedHeaders(settings, address) },
          redirect: "manual",
          signal: watch.signal,
        }),
      );
      linkedEtag ??= response.headers.get("x-linked-etag");
      const { status } = response;
      if (status < 300 || accepted.includes(status)) {
        return transferOf(response, linkedEtag, watch);
      }
      const location = response.headers.get("location");
      if (status < 400 && location !== null) {
        void response.body?.cancel().catch(() => {});
        address = nextAddress(address, location, hops, settings);
        continue;
      }
      throw await statusError(response, client, wanted, address, watch);
    }
  } catch (error) {
    watch.end();
    throw error;
  }
}

/**
 * `fetch` for a program that reads JSON: answers arrive whole, at most `bytesMax` long, and
 * failures are this file's, after some attempts.
 */
export function jsonFetch(client: HubClient, wanted: Wanted, bytesMax: number) {
  return async (url: string): Promise<Response> => {
    const retries = new Retries(client, 4);
    for (;;) {
      try {
        const transfer = await openTransfer(client, url, wanted, { accept: "application/json" });
        const text = await textOf(transfer, bytesMax, client.settings.endpoint);
        return new Response(text, { status: 200, headers: transfer.headers });
      } catch (error) {
        await retries.after(error);
      }
    }
  };
}

// --- internal ---

const redirectsMax = 8;
const waitMsMax = 60_000;

/** Aborts a request that stalls, and tells that from a stop by the user. */
class Watch {
  private readonly controller = new AbortController();
  private timer: Timer | null = null;
  private stalled = false;
  readonly signal: AbortSignal;

  constructor(
    private readonly client: HubClient,
    private readonly url: string,
  ) {
    const { signal } = client;
    this.signal = signal
      ? AbortSignal.any([signal, this.controller.signal])
      : this.controller.signal;
  }

  /** Awaits `step`, no longer than the limit. Throws `Interrupted` or "cancelled". */
  async during<T>(step: Promise<T>): Promise<T> {
    const { timeoutMs } = this.client.settings;
    this.timer = setTimeout(() => {
      this.stalled = true;
      this.controller.abort();
    }, timeoutMs);
    try {
      return await step;
    } catch (error) {
      if (this.client.signal?.aborted) throw stopped();
      const code = this.stalled ? "ETIMEDOUT" : String((error as { code?: unknown }).code ?? "");
      const refusal = networkRefusal(this.url, code, (error as Error).message);
      if (refusal.isFinal) throw refusal.error;
      throw new Interrupted(refusal.error, null, refusal.isHard);
    } finally {
      clearTimeout(this.timer);
    }
  }

  end(): void {
    if (this.timer) clearTimeout(this.timer);
    this.controller.abort();
  }
}

function stopped(): BasedXLError {
  return cancelled("Stopped while a model was being fetched; run it again to go on from there.");
}

/** The token goes to the hub's own host alone, whatever host a redirect names. */
function fixedHeaders({ endpoint, token }: HubSettings, address: URL): Record<string, string> {
  const own = new URL(endpoint);
  const isUpgrade =
    own.protocol === "http:" && address.protocol === "https:" && own.port === "" && !address.port;
  const isOwn = own.hostname === address.hostname && (own.origin === address.origin || isUpgrade);
  return {
    "user-agent": "basedxl",
    // Offsets and lengths must be those of the file.
    "accept-encoding": "identity",
    ...(token !== null && isOwn ? { authorization: `Bearer ${token}` } : {}),
  };
}

function nextAddress(from: URL, location: string, hops: number, { endpoint }: HubSettings): URL {
  const next = URL.canParse(location, from.href) ? new URL(location, from.href) : null;
  if (next === null || hops >= redirectsMax) throw redirectRefusal(endpoint, "in a circle");
  const isWeb = next.protocol === "https:" || next.protocol === "http:";
  if (!isWeb || (from.protocol === "https:" && next.protocol === "http:")) {
    throw redirectRefusal(endpoint, `from ${from.protocol}// to ${next.protocol}//`);
  }
  return next;
}

function transferOf(response: Response, linkedEtag: string | null, watch: Watch): Transfer {
  const { status, headers, body } = response;
  return {
    status,
    headers,
    linkedEtag,
    close: () => watch.end(),
    async *chunks() {
      const reader = body?.getReader();
      try {
        while (reader) {
          const { done, value } = await watch.during(reader.read());
          if (done) return;
          if (value.length > 0) yield value;
        }
      } finally {
        watch.end();
      }
    },
  };
}

async function statusError(
  response: Response,
  { settings }: HubClient,
  wanted: Wanted,
  address: URL,
  watch: Watch,
): Promise<Error> {
  const { status, headers } = response;
  watch.end();
  const isHub = new URL(settings.endpoint).host === address.host;
  const error = statusRefusal(status, headers, wanted, settings, isHub ? null : address.host);
  if (status === 429) return new Interrupted(error, retryAfterMs(headers));
  return status >= 500 || status === 408 ? new Interrupted(error, retryAfterMs(headers)) : error;
}

/** Seconds or a date; null where there is none. */
function retryAfterMs(headers: Headers): number | null {
  const text = headers.get("retry-after");
  if (text === null) return null;
  if (/^\d{1,9}$/.test(text)) return 1000 * Number(text);
  const dateMs = Date.parse(text);
  return Number.isNaN(dateMs) ? null : Math.max(0, dateMs - Date.now());
}

async function textOf(transfer: Transfer, bytesMax: number, endpoint: string): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of transfer.chunks()) {
    bytes += chunk.length;
    if (bytes > bytesMax) {
      throw new BasedXLError(
        "download",
        `${endpoint} answered with more than ${bytesMax >> 20} MiB where a list of files was ` +
          "expected; is HF_ENDPOINT right?",
      );
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  const stop = () => resolve();
  signal?.addEventListener("abort", stop);
  await promise;
  signal?.removeEventListener("abort", stop);
  clearTimeout(timer);
  if (signal?.aborted) throw stopped();
}
