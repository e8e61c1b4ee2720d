/**
 * Makes the page's files from client/ and style/, in memory: at a server's first request for them
 * in a clone, and once when the binary is built, which then has them (see bundled.ts).
 */
import { fileURLToPath } from "node:url";

export interface PageFile {
  /** Of its address. */
  path: string;
  type: string;
  text: string;
}

/** Rejects where a file is broken. */
export async function bundlePage(): Promise<PageFile[]> {
  const [script, style, html, icon] = await Promise.all([
    bundled(new URL("./client/main.tsx", import.meta.url)),
    bundled(new URL("./style/page.css", import.meta.url)),
    Bun.file(new URL("./client/index.html", import.meta.url)).text(),
    Bun.file(new URL("./client/icon.svg", import.meta.url)).text(),
  ]);
  return [
    { path: "/", type: "text/html; charset=utf-8", text: html },
    { path: "/page.js", type: "text/javascript; charset=utf-8", text: script },
    { path: "/page.css", type: "text/css; charset=utf-8", text: style },
    { path: "/icon.svg", type: "image/svg+xml", text: icon },
  ];
}

// --- internal ---

async function bundled(entry: URL): Promise<string> {
  const { outputs } = await Bun.build({
    entrypoints: [fileURLToPath(entry)],
    target: "browser",
    minify: true,
    // Without it JSX is compiled for development.
    define: { "process.env.NODE_ENV": '"production"' },
  });
  return await outputs[0]!.text();
}
