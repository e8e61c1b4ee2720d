/**
 * Chromium, where the machine has one: `BASEDXL_CHROMIUM` names it, else it is looked for on the
 * PATH.
 */
import { type Browser, chromium, type Page } from "playwright-core";

const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/** null where there is none, which is printed. */
export function findChromium(): string | null {
  const named = process.env.BASEDXL_CHROMIUM;
  const found = named ?? names.map((name) => Bun.which(name)).find((path) => path !== null);
  if (found === undefined) console.log("Skipped: no Chromium on the PATH (BASEDXL_CHROMIUM).");
  return found ?? null;
}

export async function startBrowser(executablePath: string): Promise<Browser> {
  // Root, as in containers, has no sandbox.
  const args = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  return await chromium.launch({ executablePath, args });
}

/** Drops a PNG onto the page. */
export async function dropFile(page: Page, name: string, bytes: Uint8Array): Promise<void> {
  const contents = JSON.stringify(Buffer.from(bytes).toString("base64"));
  const file = `new File([Uint8Array.fromBase64(${contents})], "${name}", { type: "image/png" })`;
  const dataTransfer = await page.evaluateHandle(
    `(() => { const data = new DataTransfer(); data.items.add(${file}); return data; })()`,
  );
  await page.dispatchEvent("body", "drop", { dataTransfer });
}

/** Everything that a page complains of, and every host that it asks. */
export class Watcher {
  readonly complaints: string[] = [];
  readonly hosts = new Set<string>();

  watch(page: Page): Page {
    page.on("console", (message) => {
      const isComplaint = message.type() === "error" || message.type() === "warning";
      if (isComplaint) this.complaints.push(`${message.text()} (${message.location().url})`);
    });
    page.on("pageerror", (error) => this.complaints.push(error.stack ?? error.message));
    page.on("request", (request) => {
      const { protocol, host } = new URL(request.url());
      if (protocol !== "blob:" && protocol !== "data:") this.hosts.add(host);
    });
    return page;
  }
}
