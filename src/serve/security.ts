/**
 * Who may ask what: keys, names of hosts (against DNS rebinding), origins (against requests that
 * pages of other sites make), and the headers that keep browsers from running what is no script of
 * the page. The bytes of keys are compared in constant time.
 */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { MiddlewareHandler } from "hono";
import { getCookie } from "hono/cookie";
import { cors } from "hono/cors";
import { secureHeaders } from "hono/secure-headers";
import { HttpError, type ServeEnv } from "./environment.ts";
import type { ApiKey, ServeConfig } from "./settings.ts";

/** Whether only this machine reaches the address. */
export function isLoopback(host: string): boolean {
  const bare = bareHost(host);
  return bare === "localhost" || bare === "::1" || /^127(\.\d{1,3}){3}$/.test(bare);
}

type AccessConfig = Pick<ServeConfig, "host" | "apiKeys" | "allowHosts" | "allowOrigins">;

/** Refuses requests to other names and from other sites. */
export function checkSource({
  host,
  apiKeys,
  allowHosts,
  allowOrigins,
}: AccessConfig): MiddlewareHandler<ServeEnv> {
  const allowed = new Set([...allowHosts, host].map(bareHost));
  // With keys, another name does no harm: a page that rebinds it does not have the key.
  const isOpen = apiKeys.length > 0 && allowHosts.length === 0;
  return async (c, next) => {
    const named = c.req.header("Host") ?? "";
    if (!isOpen && !allowed.has(bareHost(named)) && !isLoopback(named)) {
      throw new HttpError(
        403,
        "wrong-host",
        "The server does not know itself by this name: --allow-host adds one.",
      );
    }
    const origin = c.req.header("Origin");
    const isSame = origin === undefined || URL.parse(origin)?.host === named;
    if (!isSame && !allowOrigins.includes(origin)) {
      throw new HttpError(
        403,
        "wrong-origin",
        "Pages of this origin may not call the server: --allow-origin adds one.",
      );
    }
    await next();
  };
}

/** Answers to the pages of other sites that may call. */
export function allowOrigins({ allowOrigins: origins }: AccessConfig): MiddlewareHandler<ServeEnv> {
  return cors({
    origin: (origin) => (origins.includes(origin) ? origin : null),
    allowHeaders: ["Authorization", "Content-Type", "Last-Event-ID"],
    exposeHeaders: ["Location", "Retry-After", "ETag"],
    maxAge: 600,
  });
}

/** Headers of every answer; a route may have a policy of its own. */
export function safeHeaders(): MiddlewareHandler<ServeEnv> {
  const common = secureHeaders({
    crossOriginResourcePolicy: "same-origin",
    referrerPolicy: "no-referrer",
    strictTransportSecurity: false,
    xFrameOptions: "DENY",
  });
  return async (c, next) =>
    await common(c, async () => {
      await next();
      const { headers } = c.res;
      const name = "Content-Security-Policy";
      if (!headers.has(name)) headers.set(name, contentSecurityPolicy);
    });
}

/** For answers that are no page. */
const contentSecurityPolicy =
  "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; " +
  "frame-ancestors 'none'";

/** The cookie of a browser that has logged in. */
export const loginCookie = "basedxl_login";
/** The cookie by which a browser without a key is known. */
const clientCookie = "basedxl_client";

/** The keys of the server. */
export class Keys {
  /** By their digests, which have one length. */
  private readonly keys: readonly { name: string; digest: Buffer; token: Buffer }[];

  constructor(keys: readonly ApiKey[]) {
    this.keys = keys.map(({ name, key }) => ({
      name,
      digest: digestOf(key),
      token: Buffer.from(tokenOf(key)),
    }));
  }

  get isNeeded(): boolean {
    return this.keys.length > 0;
  }

  /** The name of a key; null for a wrong one. */
  nameOf(key: string): string | null {
    const digest = digestOf(key);
    return this.matching((each) => timingSafeEqual(each.digest, digest));
  }

  /** The name of the key that a cookie was made of; null for others. */
  nameOfToken(token: string): string | null {
    const bytes = Buffer.from(token);
    return this.matching((each) => {
      return each.token.length === bytes.length && timingSafeEqual(each.token, bytes);
    });
  }

  // --- internal ---

  /** Looks at all of them, so that the time does not say which was near. */
  private matching(isSame: (key: { digest: Buffer; token: Buffer }) => boolean): string | null {
    const found = this.keys.filter(isSame);
    return found[0]?.name ?? null;
  }
}

/** The value of the login's cookie: what only an owner of the key can compute, and not the key. */
export function tokenOf(key: string): string {
  return createHmac("sha256", key).update("basedxl login").digest("hex");
}

/** Says who asks, and refuses who must not: `isOpen` has the paths that need no key. */
export function identify(
  keys: Keys,
  addressOf: (env: unknown, request: Request) => string,
  isOpen: (path: string) => boolean,
): MiddlewareHandler<ServeEnv> {
  return async (c, next) => {
    const header = c.req.header("Authorization") ?? "";
    const given = keyIn(header);
    const cookie = getCookie(c, loginCookie);
    const byKey = given === null ? null : keys.nameOf(given);
    const name = byKey ?? (cookie === undefined ? null : keys.nameOfToken(cookie));
    const browser = getCookie(c, clientCookie)?.slice(0, 64);
    c.set("client", name ?? (browser ? `browser ${browser}` : addressOf(c.env, c.req.raw)));
    if (keys.isNeeded && name === null && !isOpen(c.req.path)) {
      throw new HttpError(401, "no-key", "The request needs a key: Authorization: Bearer KEY.", {
        "WWW-Authenticate": "Bearer",
      });
    }
    await next();
  };
}

// --- internal ---

/** `Bearer KEY`, or the password of `Basic`, as clients of A1111 send it. */
function keyIn(header: string): string | null {
  const [, scheme = "", value = ""] = /^(Bearer|Basic) +(\S+)$/i.exec(header) ?? [];
  if (scheme.toLowerCase() === "bearer") return value;
  if (scheme === "") return null;
  const text = Buffer.from(value, "base64").toString();
  return text.slice(text.indexOf(":") + 1);
}

/** Without port and brackets, in lower case. */
function bareHost(host: string): string {
  const named = host.trim().toLowerCase();
  if (named.startsWith("[")) return named.slice(1, named.indexOf("]"));
  // More than one ":" is an address of IPv6.
  return named.split(":").length > 2 ? named : (named.split(":")[0] ?? "").replace(/\.$/, "");
}

function digestOf(key: string): Buffer {
  return createHash("sha256").update(key).digest();
}
