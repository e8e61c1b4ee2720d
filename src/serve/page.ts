/**
 * The page at `/`: HTML, one style sheet and one module, without a request to any other host.
 *
 * In reading order: `page/bundle.ts` and `bundled.ts` (how client/ becomes these files),
 * `page/client/main.tsx` (what the browser runs), `page/style/page.css`.
 */
import { Hono } from "hono";
import type { ServeEnv } from "./environment.ts";
import { bundledFiles } from "./page/bundled.ts";
import { unchanged } from "./routes/unchanged.ts";

/**
 * Nothing from elsewhere, nothing inline, and no text that becomes HTML: a prompt or what an image
 * says cannot run.
 */
const contentSecurityPolicy = [
  "default-src 'none'",
  ...["script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self' blob:"],
  ...["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"],
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join("; ");

/** The page and its files. */
export function pageRoutes() {
  const app = new Hono<ServeEnv>();
  let files: ReturnType<typeof filesByPath> | null = null;
  for (const path of ["/", "/page.js", "/page.css", "/icon.svg"]) {
    app.get(path, async (c) => {
      files ??= filesByPath();
      const { text, type, etag } = (await files).get(path)!;
      c.header("Content-Security-Policy", contentSecurityPolicy);
      return unchanged(c, etag, "no-cache") ?? c.body(text, 200, { "Content-Type": type });
    });
  }
  return app;
}

// --- internal ---

async function filesByPath() {
  const files = bundledFiles ?? (await (await import("./page/bundle.ts")).bundlePage());
  const entries = files.map((file) => {
    return [file.path, { ...file, etag: `"${Bun.hash(file.text).toString(36)}"` }] as const;
  });
  return new Map(entries);
}
