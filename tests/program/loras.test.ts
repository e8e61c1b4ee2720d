/**
 * `basedxl sample` with LoRAs for the bundled model, as users run it: flags and tags, what it says,
 * and what it refuses.
 */
import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeRandomLora } from "../../src/bench/support/random-lora.ts";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { resources } from "../../src/resources.ts";
import { relativeL2 } from "../support/compare.ts";

const root = join(import.meta.dir, "../..");
const folder = mkdtempSync(join(tmpdir(), "basedxl-sample-loras-"));
afterAll(() => rmSync(folder, { recursive: true }));
const timeoutMs = 60_000;
const small = ["--steps", "2", "--width", "64", "--height", "64", "--device", "cpu", "--seed", "7"];

const model = await openModelFolder(resources.bundledModel());
mkdirSync(join(folder, "models/loras"), { recursive: true });
const style = join(folder, "models/loras/my style.safetensors");
writeRandomLora(style, model, /attn1\.to_|self_attn/);
const lightning = join(folder, "sdxl_lightning_4step_lora.safetensors");
writeRandomLora(lightning, model, /mid_block\.resnets\.0\.conv1/);

async function basedxl(...args: string[]) {
  const { BASEDXL_MODEL: _, ...others } = process.env;
  const env = { ...others, BASEDXL_MODELS_DIR: join(folder, "models") };
  const command = [process.execPath, join(root, "src", "main.ts"), "sample", ...args];
  const streams = { stdin: "ignore", stdout: "pipe", stderr: "pipe" } as const;
  const child = Bun.spawn(command, { cwd: folder, env, ...streams });
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { stdout, stderr, exitCode };
}

async function latentsOf(name: string, ...args: string[]): Promise<Float32Array> {
  const files = ["--out", `${name}.png`, "--save-latents", `${name}.safetensors`];
  const { stderr, exitCode } = await basedxl("a red house", ...small, "--quiet", ...files, ...args);
  expect({ stderr, exitCode }).toEqual({ stderr: "", exitCode: 0 });
  return readSafetensors(join(folder, `${name}.safetensors`)).get("latents")!.data;
}

test(
  "says what each LoRA changes and how long merging took, and reports it in JSON",
  async () => {
    const { stderr, stdout, exitCode } = await basedxl(
      "a red house <lora:my style:0.5:0.25>",
      ...[...small, "--lora", `${lightning}:0.8`, "--json"],
    );
    expect(stderr).toContain(
      "LoRA sdxl_lightning_4step_lora at 0.8: changes 1 weight of the UNet;",
    );
    expect(stderr).toContain("made for SDXL-Lightning: 4 steps of euler, trailing spacing, no ");
    expect(stderr).toContain("warning: The LoRA sdxl_lightning_4step_lora is made for other ");
    expect(stderr).toMatch(/^LoRA my style at 0\.25, text encoders 0\.5: changes \d+ weights of/m);
    expect(stderr).toMatch(/^Merging 2 LoRAs took [\d.]+ m?s\.$/m);
    expect(exitCode).toBe(0);
    const { loras, timings, prompt } = JSON.parse(stdout);
    expect(prompt).toBe("a red house <lora:my style:0.5:0.25>");
    expect(loras).toMatchObject([
      {
        name: "sdxl_lightning_4step_lora",
        path: lightning,
        scale: 0.8,
        text_scale: 0.8,
        weights: 1,
      },
      { name: "my style", path: style, scale: 0.25, text_scale: 0.5 },
    ]);
    for (const { hash } of loras) expect(hash).toMatch(/^[0-9a-f]{12}$/);
    expect(timings.adapt_ms).toBeGreaterThan(0);
  },
  timeoutMs,
);

test(
  "changes the image, alike on one rank and two, by flag and by tag",
  async () => {
    const plain = await latentsOf("plain");
    const flag = await latentsOf("flag", "--lora", `${style}:0.8`);
    const named = await latentsOf("named", "--lora", "my style:0.8");
    const ranks = await latentsOf("ranks", "--lora", `${style}:0.8`, "--gpus", "2");
    expect(relativeL2(flag, plain)).toBeGreaterThan(1e-3);
    expect(named).toEqual(flag);
    expect(relativeL2(ranks, flag)).toBeLessThan(1e-5);
  },
  timeoutMs,
);

test(
  "refuses what is no LoRA for the model before weights load",
  async () => {
    writeFileSync(join(folder, "page.safetensors"), "<!doctype html><html></html>");
    const unet = join(resources.bundledModel(), "unet/diffusion_pytorch_model.safetensors");
    const refused: [string[], RegExp][] = [
      [
        ["--lora", "my stile"],
        /^error: The LoRA "my stile" is not in the folders of models\. Did you mean my style\?/,
      ],
      [["--lora", "/no/where.safetensors:0.5"], /^error: The LoRA "?\/no\/where\.safetensors"? /],
      [["--lora", "page.safetensors"], /page\.safetensors is a web page/],
      [["--lora", unet], /is the diffusion model of .*, not a LoRA that changes this model\./],
      [["--lora", `${style}:200`], /^error: --lora must be FILE, FILE:SCALE or FILE:SCALE:TEXT-/],
      [["--prompt", "<lora:x:y>"], /^error: The tag <lora:x:y> in --prompt needs scales/],
    ];
    for (const [args, expected] of refused) {
      const { stderr, exitCode } = await basedxl(...small, ...args);
      expect(stderr.trim()).toMatch(expected);
      expect(stderr.trim().split("\n")).toHaveLength(1);
      expect(exitCode).toBeGreaterThan(0);
    }
  },
  timeoutMs,
);
