/**
 * Makes the README's picture of the server's page: images of the bundled model, one of them large.
 * `bun run picture:page`, with Chromium on the PATH.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import sharp from "sharp";
import { newFolder } from "../../src/bench/support/binary.ts";
import { ServeProcess } from "../../src/bench/support/serve-process.ts";
import { findChromium, startBrowser } from "./browser.ts";
import { root } from "./sources.ts";

const file = join(root, "src/assets/page.webp");
const viewport = { width: 1200, height: 800 };
/** Smaller than the window, for a README is narrower. */
const width = 1000;
/** From the oldest image to the one that is shown. */
const prompts = [
  "three pink flowers in the snow",
  "a cyan fish below a white star in the night sky",
  "a large orange cat on a purple background",
  "a red heart, a yellow star and a blue ring on a white background",
  "a purple diamond in the desert at sunset",
  "a brown mushroom on the grass in the rain",
  "a yellow moon above a blue boat by the sea",
];
const shown = { prompt: "a red house left of a green tree on the grass", seed: "42" };

const chromium = findChromium();
if (chromium === null) throw new Error("The picture needs Chromium on the PATH.");
const outputs = newFolder();
const flags = ["--device", "cpu", "--gpus", "4", "--share", "4"];
const server = await ServeProcess.start(outputs, flags);
const browser = await startBrowser(chromium);
try {
  for (const [index, prompt] of prompts.entries()) {
    await server.ended((await server.submit({ prompt, seed: 42 + index })).id);
  }
  const page = await browser.newPage({ viewport, colorScheme: "dark" });
  await page.goto(server.base);
  await page.waitForSelector(".state[data-state=live]");
  await page.fill("#field-prompt", shown.prompt);
  await page.fill("#field-seed", shown.seed);
  await page.press("#field-prompt", "Control+Enter");
  await page.locator(".progress-text").filter({ hasText: "Done" }).waitFor();
  await page.locator(".gallery li").nth(prompts.length).waitFor();
  await page.locator("h1").click();
  await page.waitForFunction("[...document.images].every((image) => image.complete)");
  const bytes = await page.screenshot();
  await sharp(bytes).resize({ width }).webp({ quality: 80, effort: 6 }).toFile(file);
} finally {
  await browser.close();
  await server.kill("SIGTERM");
  rmSync(outputs, { recursive: true, force: true });
}
