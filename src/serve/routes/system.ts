/**
 * Routes about the server itself: capabilities, health, metrics, the log-in of browsers, and the
 * OpenAPI document with its page.
 */
import { Hono } from "hono";
import { deleteCookie, setCookie } from "hono/cookie";
import type { CapabilitySource } from "../capabilities.ts";
import { HttpError, type ServeEnv } from "../environment.ts";
import type { Metrics } from "../metrics.ts";
import { loginSchema } from "../schemas.ts";
import { type Keys, loginCookie, tokenOf } from "../security.ts";
import { valid } from "./json.ts";
import { unchanged } from "./unchanged.ts";

interface SystemOptions {
  capabilities: CapabilitySource;
  metrics: Metrics;
  keys: Keys;
  /** A sentence until a model is loaded, and while the server stops; then null. */
  whyNotReady: () => string | null;
}

export function systemRoutes({ capabilities, metrics, keys, whyNotReady }: SystemOptions) {
  const app = new Hono<ServeEnv>();
  app.get("/health", (c) => c.json({ status: "ok" }));
  app.get("/ready", (c) => {
    const message = whyNotReady();
    return message === null
      ? c.json({ status: "ready" })
      : c.json({ status: "not ready", message }, 503);
  });
  app.get("/metrics", async (c) => {
    return c.body(await metrics.text(), 200, { "Content-Type": metrics.contentType });
  });
  app.get("/api/v1/capabilities", (c) => {
    return unchanged(c, capabilities.etag()) ?? c.json(capabilities.current());
  });
  app.post("/api/v1/refresh", async (c) => {
    await capabilities.refresh();
    return c.json({ status: "ok" });
  });
  app.post("/api/v1/login", valid("json", loginSchema), (c) => {
    const { key } = c.req.valid("json");
    if (keys.nameOf(key) === null) throw new HttpError(401, "wrong-key", "The key is wrong.");
    const secure = c.req.header("X-Forwarded-Proto") === "https";
    const maxAge = 30 * 24 * 3600;
    setCookie(c, loginCookie, tokenOf(key), {
      ...{ httpOnly: true, sameSite: "Strict", path: "/", secure, maxAge },
    });
    return c.body(null, 204);
  });
  app.post("/api/v1/logout", (c) => {
    deleteCookie(c, loginCookie, { path: "/" });
    return c.body(null, 204);
  });
  return app;
}
