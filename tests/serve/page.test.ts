/**
 * The page of `serve` in a real browser, as a user has it: draw, watch, cancel, reload, restore,
 * two tabs, a phone, a server that restarts; without a complaint in the console, without a request
 * to another host, and without a violation that axe knows.
 */
import {
  afterAll,
  afterEach,
  beforeAll,
  describe,
  expect,
  setDefaultTimeout,
  test,
} from "bun:test";
import { readFileSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { AxeResults } from "axe-core";
import type { Browser, BrowserContext, Page } from "playwright-core";
import sharp from "sharp";
import { newFolder } from "../../src/bench/support/binary.ts";
import { ServeProcess } from "../../src/bench/support/serve-process.ts";
import type { Capabilities } from "../../src/serve/capabilities.ts";
import { dropFile, findChromium, startBrowser, Watcher } from "../support/browser.ts";

const chromium = findChromium();
// The machine may be busy.
setDefaultTimeout(200_000);

describe.skipIf(chromium === null)("the page", () => {
  const outputs = newFolder();
  // By itself the server gives each image fewer ranks where the cores are busy. One thread leaves
  // a core to the browser.
  const flags = ["--device", "cpu", "--gpus", "4", "--share", "4", "--threads", "1"];
  let server: ServeProcess;
  let browser: Browser;
  let context: BrowserContext;
  let page: Page;
  const watcher = new Watcher();

  beforeAll(async () => {
    [server, browser] = await Promise.all([
      ServeProcess.start(outputs, flags),
      startBrowser(chromium!),
    ]);
    context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
    context.setDefaultTimeout(60_000);
    page = watcher.watch(await context.newPage());
    await page.goto(server.base);
    await page.waitForSelector(".state[data-state=live]");
  });

  // What a test leaves when it fails would be in the way of all others.
  afterEach(() =>
    server.fetch("/api/v1/cancel", {
      ...{ method: "POST", body: '{"what":"all"}' },
      headers: { "content-type": "application/json" },
    }),
  );

  afterAll(async () => {
    await browser?.close();
    await server?.kill("SIGKILL");
    rmSync(outputs, { recursive: true, force: true });
  });

  type Asked = Partial<Record<"prompt" | "steps" | "seed" | "size", string>>;

  /** Fills the form and queues a job, which is then shown. */
  async function ask(settings: Asked, tab = page) {
    const { prompt = "a red house", steps = "2", seed = "", size = "256" } = settings;
    await tab.fill("#field-prompt", prompt);
    await tab.fill("#field-num_inference_steps", steps);
    await tab.fill("#field-seed", seed);
    await tab.fill('[aria-label="Width in pixels"]', size);
    await tab.fill('[aria-label="Height in pixels"]', size);
    await generate(tab);
  }

  /** A job that does not end by itself while a test looks at it, some steps in a second. */
  const askLong = (prompt = "a red house", tab = page) =>
    ask({ prompt, steps: "400", size: "512" }, tab);

  async function generate(tab = page) {
    const before = tab.url();
    await tab.press("#field-prompt", "Control+Enter");
    await tab.waitForURL((url) => url.href !== before);
  }

  /** Resolves when the job that is shown has come so far. */
  async function reaches(text: RegExp, tab = page) {
    await tab.locator(".progress-text").filter({ hasText: text }).waitFor();
  }

  const shownImage = (tab = page) => tab.locator(".stage .picture img").getAttribute("src");

  async function bytesAt(address: string | null): Promise<Uint8Array> {
    return await (await fetch(new URL(address!, server.base))).bytes();
  }

  async function startFrom(bytes: Uint8Array, tab: Page) {
    const file = { name: "start.png", mimeType: "image/png", buffer: Buffer.from(bytes) };
    await tab.setInputFiles('input[aria-label="Starting image"]', file);
  }

  const cancelled = async (tab = page) => {
    await tab.getByRole("button", { name: "Cancel this", exact: true }).click();
    await reaches(/^Cancelled/, tab);
  };

  test("draws: the image, its place in the gallery, the job in the address", async () => {
    await ask({ prompt: "a red house", seed: "7" });
    await reaches(/^Done.*Seed 7/);
    expect(await shownImage()).toMatch(/^\/api\/v1\/jobs\/[\w-]+\/images\/0$/);
    expect((await bytesAt(await shownImage())).length).toBeGreaterThan(1000);
    expect(page.url()).toMatch(/#job=[\w-]+$/);
    await page.locator(".gallery li").first().waitFor();
    expect(await page.title()).toBe("Done · BasedXL");
  });

  test("progress: step, time left, a preview; cancelled within the job", async () => {
    await askLong();
    await reaches(/^Step \d+ of 400 · [\d:]+( s)? left/);
    await page.locator('.stage .picture img[src^="blob:"]').waitFor();
    await page.waitForFunction(
      String.raw`/^\d+\/400 · [\d:]+( s)? · BasedXL$/.test(document.title)`,
    );
    await cancelled();
  });

  test("cancels what is left, and all", async () => {
    for (let i = 0; i < 3; i++) await askLong();
    await page.getByRole("button", { name: "Cancel 2 waiting" }).first().click();
    await page.locator(".queue li").nth(1).waitFor({ state: "detached" });
    await askLong();
    await page.getByRole("button", { name: "Cancel all" }).first().click();
    await page.locator(".state").filter({ hasText: "Ready" }).waitFor();
  });

  test("a reload in the middle of a job shows the same job, its layout and preview", async () => {
    await askLong();
    await reaches(/^Step/);
    const address = page.url();
    await page.reload();
    await reaches(/^Step \d+ of 400.*4 ranks = 2 guidance branches × 2 patches/);
    await page.locator('.stage .picture img[src^="blob:"]').waitFor();
    expect(page.url()).toBe(address);
    expect(await page.inputValue("#field-num_inference_steps")).toBe("400");
    await cancelled();
  });

  test("an image that is dropped brings its settings, and with them the same bytes", async () => {
    await ask({ prompt: "a (green tree:1.2) at night", seed: "123456789012345678", steps: "3" });
    await reaches(/^Done.*Seed 123456789012345678/);
    const first = await bytesAt(await shownImage());
    await ask({ prompt: "something else", seed: "5" });
    await reaches(/^Done.*Seed 5/);
    await dropFile(page, "dropped.png", first);
    await page.getByText("The form has the settings of dropped.png").waitFor();
    expect(await page.inputValue("#field-prompt")).toBe("a (green tree:1.2) at night");
    await generate();
    await reaches(/^Done.*Seed 123456789012345678/);
    expect(await bytesAt(await shownImage())).toEqual(first);
  });

  test("an error is the server's sentence", async () => {
    await page.fill('[aria-label="Width in pixels"]', "250");
    // In the box, whose value counts too.
    await page.press('[aria-label="Width in pixels"]', "Control+Enter");
    const refused = await page.getByRole("alert").filter({ hasText: "width" }).textContent();
    expect(refused).toMatch(/^width must be a multiple of 32.*\.$/);
    await page.getByRole("button", { name: "Close message" }).first().click();
    await page.fill('[aria-label="Width in pixels"]', "256");
    expect(watcher.complaints.splice(0)).toHaveLength(1);
  });

  test("what a prompt says is text, in the form, the queue and the parameters", async () => {
    const prompt = "<img src=x onerror=alert(1)> <b>bold</b>";
    await ask({ prompt });
    await reaches(/^Done/);
    await page.locator(".stage .picture").click();
    expect(await page.locator(".viewer .said").first().textContent()).toBe(prompt);
    expect(await page.locator("img[src=x], .viewer b").count()).toBe(0);
    await page.keyboard.press("Escape");
    await page.locator(".viewer[open]").waitFor({ state: "detached" });
  });

  test("keys: weights of words, the list of keys", async () => {
    await page.fill("#field-prompt", "a red house");
    await page.focus("#field-prompt");
    await page.keyboard.press("Control+ArrowUp");
    await page.keyboard.press("Control+ArrowUp");
    expect(await page.inputValue("#field-prompt")).toBe("a red (house:1.2)");
    await page.locator("h1").click();
    await page.keyboard.press("?");
    await page.getByRole("dialog", { name: "Keys" }).waitFor();
    await page.keyboard.press("Escape");
    await page.keyboard.press("/");
    expect(await page.evaluate("document.activeElement?.id")).toBe("field-prompt");
  });

  test("a second tab sees the job, its images, and can cancel it", async () => {
    const second = watcher.watch(await context.newPage());
    await second.goto(server.base);
    await askLong("of the first tab");
    await reaches(/^Step/);
    await second.getByRole("button", { name: /of the first tab Step/ }).click();
    await reaches(/^Step \d+ of 400/, second);
    await cancelled(second);
    await reaches(/^Cancelled/);
    const before = await second.locator(".gallery li").count();
    await ask({ prompt: "of the first tab" });
    await second.locator(".gallery li").nth(before).waitFor();
    await second.close();
  });

  test("more tabs than a browser has connections, also when the first goes", async () => {
    const open = async () => {
      const tab = watcher.watch(await context.newPage());
      await tab.goto(server.base);
      await tab.waitForSelector(".state[data-state=live]");
      return tab;
    };
    const first = await open();
    // The page of the other tests goes, and with it the connection, if it holds it.
    await page.goto("about:blank");
    const tabs = [first];
    while (tabs.length < 7) tabs.push(await open());
    await first.close();
    const last = tabs.at(-1)!;
    await askLong("seen by all", last);
    for (const tab of tabs.slice(1, -1)) {
      await tab.getByRole("button", { name: /seen by all Step/ }).waitFor();
    }
    await last.reload();
    await last.locator('.stage .picture img[src^="blob:"]').waitFor();
    await reaches(/2 guidance branches × 2 patches/, last);
    await cancelled(last);
    await tabs[1]!.locator(".state").filter({ hasText: "Ready" }).waitFor();
    for (const tab of tabs.slice(1)) await tab.close();
    await page.goto(server.base);
    await page.waitForSelector(".state[data-state=live]");
  });

  test("two images compared: the slider, and how far they differ", async () => {
    await page.locator(".gallery a").nth(0).click();
    await page.getByRole("button", { name: "Compare" }).click();
    await page
      .getByRole("button", { name: /^With / })
      .first()
      .click();
    await page.getByRole("slider", { name: "Share of the first" }).press("ArrowRight");
    await page.getByLabel("Difference").check();
    expect(await page.locator(".badge").textContent()).toMatch(/^\d+\.\d dB PSNR, \d+ of 255/);
    await page.keyboard.press("Escape");
  });

  test("a second pass makes the image larger, with a strength of its own", async () => {
    const passes = page.locator("fieldset", { hasText: "Second pass" }).first();
    await passes.getByText("1.5×", { exact: true }).click();
    expect(await page.inputValue("#field-hires_strength")).toBe("0.7");
    await ask({ steps: "4" });
    await reaches(/^Done/);
    const { width } = await sharp(await bytesAt(await shownImage())).metadata();
    expect(width).toBe(384);
    await passes.getByText("None", { exact: true }).click();
    expect(await page.locator("#field-hires_strength").count()).toBe(0);
  });

  test("a ControlNet and its hint", async () => {
    await page.getByLabel("ControlNet", { exact: true }).selectOption("mini-outlines");
    await page.fill("#field-prompt", "a house");
    await page.press("#field-prompt", "Control+Enter");
    await page.getByRole("alert").filter({ hasText: "hint image" }).waitFor();
    await page.getByRole("button", { name: "Close message" }).first().click();
    expect(watcher.complaints.splice(0)).toHaveLength(1);
    const hint = Buffer.from(await bytesAt(await shownImage()));
    const file = { name: "hint.png", mimeType: "image/png", buffer: hint };
    await page.setInputFiles('input[aria-label="Hint"]', file);
    await page.selectOption("#field-control_preprocess", "canny");
    await page.getByAltText("Made by canny").waitFor();
    await ask({ steps: "4" });
    await reaches(/^Done/);
    await page.getByLabel("ControlNet", { exact: true }).selectOption("");
    expect(await page.locator("#field-control_preprocess").count()).toBe(0);
  });

  test("the rows of each rank, and the same image in another mode", async () => {
    await page.click(".more summary");
    await page.fill("#field-guidance_end", "0.5");
    await ask({ steps: "4" });
    await reaches(/^Done/);
    await page.fill("#field-guidance_end", "");
    await page.click(".more summary");
    await page.locator(".stage .picture").click();
    await page.getByRole("button", { name: "Rows", exact: true }).click();
    const labels = await page.locator(".rows li").allTextContents();
    expect(labels).toEqual(["Ranks 0, 2: rows 0 to 127", "Ranks 1, 3: rows 128 to 255"]);
    await page.getByRole("button", { name: "Rows without guidance" }).click();
    const unguided = await page.locator(".rows li").allTextContents();
    expect(unguided.map((text) => text.replace(/:.*/, ""))).toEqual([
      "Rank 0",
      "Rank 1",
      "Rank 2",
      "Rank 3",
    ]);
    await page.getByLabel("Compare with another mode").selectOption("full_sync");
    await page.locator(".comparison").waitFor();
    await page.keyboard.press("Escape");
  });

  /** A tab whose server lists more than it has. */
  async function tabWith(change: (capabilities: Capabilities) => object) {
    const tab = await context.newPage();
    await tab.route("**/api/v1/capabilities", async (route) => {
      const headers = { ...route.request().headers() };
      // Unchanged, it would come without a body.
      delete headers["if-none-match"];
      const response = await route.fetch({ headers });
      const own = (await response.json()) as Capabilities;
      await route.fulfill({ response, json: { ...own, ...change(own) } });
    });
    await tab.goto(server.base);
    await tab.waitForSelector(".state[data-state=live]");
    return tab;
  }

  const withRefiner = ({ models }: Capabilities) => ({
    models: [...models, { ...models[0]!, id: "last", name: "last", kind: "refiner" }],
  });

  /** What Ctrl+Enter sends. */
  async function asked(tab: Page) {
    const [request] = await Promise.all([
      tab.waitForRequest((each) => each.method() === "POST"),
      tab.press("#field-prompt", "Control+Enter"),
    ]);
    return request.postDataJSON();
  }

  test("IP-Adapters, refiners and upscalers, where the server lists some", async () => {
    const tab = await tabWith((own) => ({
      ...withRefiner(own),
      ipAdapters: [{ name: "faces" }, { name: "styles" }],
      upscalers: [{ name: "sharp" }],
    }));
    await tab.route("**/api/v1/jobs", async (route) => {
      if (route.request().method() === "GET") await route.continue();
      else await route.abort();
    });
    const image = Buffer.from(await bytesAt(await shownImage()));
    const file = { name: "seen.png", mimeType: "image/png", buffer: image };
    await tab.getByLabel("IP-Adapter", { exact: true }).selectOption("styles");
    await tab.setInputFiles('input[aria-label="Choose an image"]', [file, file]);
    await tab.setInputFiles('input[aria-label="Add an image"]', file);
    await tab.getByRole("button", { name: "Remove image prompt 2" }).click();
    await tab.fill("#field-ip_scale", "0.6");
    await tab.fill("#field-ip_end", "0.5");
    await tab.getByLabel("Refiner", { exact: true }).selectOption("last");
    await tab.fill("#field-denoising_end", "0.8");
    await tab.getByText("2×", { exact: true }).click();
    await tab.selectOption("#field-hires_upscaler", "sharp");
    expect(await asked(tab)).toMatchObject({
      request: {
        ...{ ip_adapter: ["styles"], ip_scale: [0.6], ip_end: [0.5], denoising_end: 0.8 },
        ...{ hires: 2, hires_upscaler: "sharp" },
      },
      ...{ refiner: "last", ip_images: [image, image].map((each) => each.toString("base64")) },
    });
    await tab.getByLabel("IP-Adapter", { exact: true }).selectOption("");
    await tab.getByLabel("Refiner", { exact: true }).selectOption("");
    await tab.locator(".segments label").filter({ hasText: "None" }).click();
    const without = await asked(tab);
    expect(without.ip_images ?? without.refiner).toBeUndefined();
    expect(Object.keys(without.request).filter((key) => /^(ip_|hires|deno)/.test(key))).toEqual([]);
    await tab.close();
  });

  test("a dropped image brings its refiner, and says which images are to be chosen", async () => {
    const tab = await tabWith(withRefiner);
    await tab.route("**/api/v1/metadata", async (route) => {
      const request = { prompt: "finished", denoising_end: 0.7, controlnet: ["mini-outlines"] };
      const said = { ...{ tool: "BasedXL", model: null, refiner: "last", request }, warnings: [] };
      await route.fulfill({ json: said });
    });
    await dropFile(tab, "dropped.png", new Uint8Array([1]));
    await tab.getByText("A ControlNet steered it: choose its hint again.").waitFor();
    expect(await tab.getByLabel("Refiner", { exact: true }).inputValue()).toBe("last");
    expect(await tab.inputValue("#field-denoising_end")).toBe("0.7");
    await tab.click(".more summary");
    await tab.getByRole("button", { name: "All back to their defaults" }).click();
    await tab.close();
  });

  test("an image to start from and its mask", async () => {
    const tab = await context.newPage();
    await tab.goto(server.base);
    const buffer = Buffer.from(await bytesAt(await shownImage()));
    await startFrom(buffer, tab);
    expect(await tab.inputValue("#field-strength")).toBe("0.75");
    await tab.locator(".brush canvas").click();
    await tab.locator(".brush-picture").press("Shift+ArrowDown");
    expect(await tab.inputValue("#field-strength")).toBe("1");
    await tab.locator("#field-mask_blur").fill("2");
    const job = await asked(tab);
    expect(Buffer.from(job.image, "base64").equals(buffer)).toBe(true);
    const mask = sharp(Buffer.from(job.mask, "base64")).extractChannel(0).raw();
    const { data, info } = await mask.toBuffer({ resolveWithObject: true });
    expect([info.width, info.height]).toEqual([256, 256]);
    expect([data[0], data[128 * 256 + 128], data[150 * 256 + 128]]).toEqual([0, 255, 255]);
    expect(job.request.mask_blur).toBe(2);
    // What needs an image is not sent without one.
    await tab.getByRole("button", { name: "Start from noise again" }).click();
    await ask({}, tab);
    await reaches(/^Done/, tab);
    await tab.close();
  });

  test("a browser that refuses to keep anything has the page too", async () => {
    const tab = watcher.watch(await context.newPage());
    const refusal = "{ get() { throw new DOMException('refused', 'SecurityError'); } }";
    for (const area of ["localStorage", "sessionStorage"]) {
      await tab.addInitScript(`Object.defineProperty(window, "${area}", ${refusal})`);
    }
    await tab.goto(server.base);
    await ask({}, tab);
    await reaches(/^Done/, tab);
    await tab.close();
  });

  test("nothing is wider than a phone", async () => {
    const phone = await context.newPage();
    await phone.setViewportSize({ width: 360, height: 740 });
    await phone.goto(page.url());
    await phone.locator(".gallery li").first().waitFor();
    await phone.locator(".more summary").click();
    const width = () => phone.evaluate("document.documentElement.scrollWidth");
    expect(await width()).toBe(360);
    await phone.locator(".gallery a").first().click();
    await phone.locator(".viewer dl").waitFor();
    const inside = () => phone.evaluate('document.querySelector(".viewer").scrollWidth');
    expect([await width(), await inside()]).toEqual([360, 360]);
    await phone.close();
  });

  test.each(["dark", "light"] as const)("axe finds nothing, %s", async (colorScheme) => {
    const axe = readFileSync(fileURLToPath(import.meta.resolve("axe-core/axe.min.js")), "utf8");
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.evaluate(axe);
    const violations = async () => {
      const { violations } = await page.evaluate<AxeResults>("axe.run(document)");
      return violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`));
    };
    if ((await page.locator(".more[open]").count()) === 0) await page.click(".more summary");
    await startFrom(await bytesAt(await shownImage()), page);
    await page.locator(".brush-picture").press("Space");
    expect(await violations()).toEqual([]);
    await page.getByRole("button", { name: "Start from noise again" }).click();
    await page.locator(".gallery a").first().click();
    await page.locator(".viewer dl").waitFor();
    expect(await violations()).toEqual([]);
    await page.keyboard.press("Escape");
  });

  test("so far without a complaint in the console or a request to another host", () => {
    expect(watcher.complaints).toEqual([]);
    expect([...watcher.hosts]).toEqual([new URL(server.base).host]);
  });

  test("a key is asked for once, and kept where scripts do not see it", async () => {
    const key = "a-key-of-24-characters-00";
    const folder = newFolder();
    const guarded = await ServeProcess.start(folder, ["--device", "cpu", "--api-key", key]);
    try {
      const tab = await (await browser.newContext()).newPage();
      await tab.goto(guarded.base);
      await tab.fill("#api-key", "a-wrong-key-of-24-letters");
      await tab.getByRole("button", { name: "Continue" }).click();
      await tab.getByText("The key is wrong.").waitFor();
      await tab.fill("#api-key", key);
      await tab.getByRole("button", { name: "Continue" }).click();
      await ask({}, tab);
      await reaches(/^Done/, tab);
      await tab.reload();
      await reaches(/^Done/, tab);
      const seen = "JSON.stringify([localStorage, sessionStorage, document.cookie])";
      expect(await tab.evaluate(seen)).not.toContain(key);
      expect(await tab.evaluate("document.cookie")).toBe("");
      await tab.context().close();
    } finally {
      await guarded.kill("SIGKILL");
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test("a server that restarts is found again", async () => {
    const count = await page.locator(".gallery li").count();
    const { port } = new URL(server.base);
    await server.kill("SIGKILL");
    await page.getByText("The server does not answer: trying again").waitFor();
    server = await ServeProcess.start(outputs, flags, port);
    await page.getByText("The server is back.").waitFor();
    await ask({});
    await reaches(/^Done/);
    await page.locator(".gallery li").nth(count).waitFor();
  });
});
