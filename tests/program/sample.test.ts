/**
 * `basedxl sample` as users run it: a separate process, the bundled model, real files. Other tests
 * compare the images with references; this one checks output, files and exit codes.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import packageJson from "../../package.json" with { type: "json" };
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import { probeDevice } from "../../src/native/device-info.ts";
import { maxAbs } from "../support/compare.ts";

const root = join(import.meta.dir, "../..");
const folder = mkdtempSync(join(tmpdir(), "basedxl-sample-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Starting Bun, loading and a few steps take seconds on a slow machine. */
const timeoutMs = 60_000;
/** A latent that 16 patches can share. */
const wide = ["--width", "64", "--height", "1024", "--no-split-batch"];
const small = ["--steps", "2", "--width", "64", "--height", "64", "--device", "cpu"];

interface Ended {
  exitCode: number;
  stdout: string;
  stderr: string;
}

function start(args: readonly string[]) {
  const { BASEDXL_MODEL: _, ...env } = process.env;
  const command = [process.execPath, join(root, "src", "main.ts"), ...args];
  return Bun.spawn(command, { cwd: folder, env, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
}

async function basedxl(...args: string[]): Promise<Ended> {
  const child = start(args);
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { exitCode, stdout, stderr };
}

/** The only line of stdout, as JSON. */
function onlyObject({ stdout }: Ended) {
  expect(stdout.trimEnd().split("\n")).toHaveLength(1);
  return JSON.parse(stdout);
}

/** Whether this machine has a GPU, or the emulator in its place. */
const drawsOnGpu = probeDevice().gpuCount > 0 && probeDevice().cudaKernels !== "";

describe("generating", () => {
  test(
    "without --device names the device, and the device that it cannot use",
    async () => {
      const args = ["--steps", "1", "--width", "64", "--height", "64", "--out", "device.png"];
      const { exitCode, stderr } = await basedxl("sample", ...args);
      expect(stderr).toMatch(
        drawsOnGpu
          ? /^Using \S.*\.$/m
          : /^(No GPU was|1 GPU was|\d+ GPUs were) found.*using the CPU\.$/m,
      );
      expect(exitCode).toBe(0);
    },
    timeoutMs,
  );

  test(
    "is not what a plan says it does",
    async () => {
      const { exitCode, stdout, stderr } = await basedxl("sample", "a cat", "--plan", ...small);
      expect(stderr).toMatch(/^Planning "a cat": 64x64, 2 steps of /m);
      expect(stderr).not.toMatch(/generating/i);
      expect(stdout).toMatch(/^In all: /m);
      expect(exitCode).toBe(0);
    },
    timeoutMs,
  );

  test(
    "reports its progress on stderr only",
    async () => {
      const quick = ["sample", "--steps", "3", "--seed", "7", "--device", "cpu"];
      const { exitCode, stdout, stderr } = await basedxl(...quick);
      expect(stderr).toContain("No --model given: using the bundled mini-sdxl (256x256");
      expect(stderr).toContain('"a red house left of a green tree on the grass": 256x256, 3 steps');
      expect(stderr).toContain("guidance 4, seed 7.\n1 rank = both guidance branches.\n");
      expect(stderr).toMatch(/^Step 3\/3, [\d.]+ s per step$/m);
      expect(stderr).toMatch(/^Wrote sample\.png in /m);
      for (const absent of ["warning", "\x1b", "\r"]) expect(stderr).not.toContain(absent);
      expect(stdout).toBe("");
      expect(exitCode).toBe(0);
      const { format, width, height, channels } = await sharp(
        join(folder, "sample.png"),
      ).metadata();
      expect({ format, width, height, channels }).toEqual({
        format: "png",
        width: 256,
        height: 256,
        channels: 3,
      });
    },
    timeoutMs,
  );

  test(
    "writes one object with --json, and saves the latents",
    async () => {
      const prompt = `a red circle ${"very ".repeat(90)}big`;
      const ended = await basedxl(
        "sample",
        prompt,
        ...small,
        ...["--negative-prompt", "", "--gpus", "4", "--seed", "9223372036854775807"],
        ...["--guidance-scale=3.5", "--scheduler", "ddim", "--warmup-steps", "1", "--json"],
        ...["--out", "j.webp", "--save-latents", "j.safetensors"],
      );
      expect(ended.stderr).not.toContain("error");
      expect(ended.exitCode).toBe(0);
      const output = onlyObject(ended);
      expect(output).toMatchObject({
        path: join(folder, "j.webp"),
        latents_path: join(folder, "j.safetensors"),
        prompt,
        negative_prompt: "",
        seed: "9223372036854775807",
        images: [{ path: join(folder, "j.webp"), seed: "9223372036854775807" }],
        width: 64,
        height: 64,
        steps: 2,
        scheduler: "ddim",
        guidance_scale: 3.5,
        device: "cpu",
        ranks: 4,
        layout: "4 ranks = 2 guidance branches × 2 patches (4 + 4 rows)",
        sync_mode: "corrected_async_gn",
        warmup_steps: 1,
        split_batch: true,
        extrapolate_halos: false,
        batch_size: 1,
        compress_exchange: "none",
      });
      const received = output.rank_stats.map((rank: { keys_values_bytes: number }) => {
        return rank.keys_values_bytes;
      });
      expect(received).toHaveLength(4);
      expect(Math.min(...received)).toBeGreaterThan(0);
      expect(output.warnings).toHaveLength(1);
      expect(output.warnings[0]).toMatch(/left out: ".*big"/);
      expect(ended.stderr).toContain(`\n${output.layout}.\n`);
      for (const warning of output.warnings)
        expect(ended.stderr).toContain(`warning: ${warning}\n`);
      expect(Object.keys(output.timings)).toEqual([
        "load_ms",
        "text_ms",
        "denoise_ms",
        "decode_ms",
        "write_ms",
        "total_ms",
        "step_ms_median",
      ]);
      for (const time of Object.values(output.timings)) expect(time).toBeGreaterThan(0);
      expect((await sharp(join(folder, "j.webp")).metadata()).format).toBe("webp");
      const latents = readSafetensors(join(folder, "j.safetensors")).get("latents");
      expect(latents?.shape).toEqual([1, 4, 8, 8]);
      expect(latents?.data.every(Number.isFinite)).toBe(true);
      expect(ended.stderr).not.toContain("Step");
    },
    timeoutMs,
  );

  test(
    "the same seed generates the same image, another does not; --quiet prints nothing",
    async () => {
      writeFileSync(join(folder, "q1.png"), "an old file");
      for (const [name, seed] of Object.entries({ q1: "5", q2: "5", q3: "6" })) {
        const args = [...small, "--quiet", "--seed", seed, "--out", `${name}.png`];
        expect(await basedxl("sample", ...args)).toEqual({ exitCode: 0, stdout: "", stderr: "" });
      }
      const bytes = ["q1", "q2", "q3"].map((name) => readFileSync(join(folder, `${name}.png`)));
      expect(bytes[1]?.equals(bytes[0] as Buffer)).toBe(true);
      expect(bytes[2]?.equals(bytes[0] as Buffer)).toBe(false);
    },
    timeoutMs,
  );

  test(
    "several images, each with its seed, like alone; their latents in one file",
    async () => {
      const size = ["--steps", "2", "--width", "64", "--height", "96", "--device", "cpu"];
      const ranks = ["--gpus", "3", "--no-split-batch", "--sync-mode", "full_sync"];
      const several = [...size, ...ranks, "--seed", "5"];
      const files = ["--out", "n.png", "--save-latents", "n.safetensors"];
      const args = [...several, ...files, "--num-images", "3", "--batch-size", "2"];
      const ended = await basedxl("sample", ...args, "--json");
      expect(ended.exitCode).toBe(0);
      expect(ended.stderr).toContain("3 images, 2 at a time, 64x96, 2 steps");
      expect(ended.stderr).toContain(
        "3 ranks = 3 patches (4 + 4 + 4 rows), both guidance branches",
      );
      expect(ended.stderr).toContain("Wrote n-2.png, seed 6.\n");
      const output = onlyObject(ended);
      const path = (number: number) => join(folder, `n-${number}.png`);
      expect(output).toMatchObject({ path: path(1), seed: "5", batch_size: 2, split_batch: false });
      expect(output.images).toEqual(
        [1, 2, 3].map((number) => ({ path: path(number), seed: `${number + 4}` })),
      );
      const latents = readSafetensors(join(folder, "n.safetensors")).get("latents");
      expect(latents?.shape).toEqual([3, 4, 12, 8]);

      const alone = [...several.slice(0, -1), "6", "--out", "alone.png", "--quiet"];
      expect((await basedxl("sample", ...alone)).exitCode).toBe(0);
      const levels = (file: string) => sharp(file).raw().toBuffer();
      const second = await levels(path(2));
      expect(maxAbs(second, await levels(join(folder, "alone.png")))).toBe(0);
      expect(maxAbs(second, await levels(path(1)))).toBeGreaterThan(10);
    },
    timeoutMs,
  );

  test(
    "a random seed is reported",
    async () => {
      const ended = await basedxl("sample", ...small, "--json", "--out", "r.png");
      const { seed } = onlyObject(ended);
      expect(seed).toMatch(/^\d+$/);
      expect(ended.stderr).toContain(`seed ${seed}.`);
    },
    timeoutMs,
  );
});

test(
  "the samplers are listed with their names elsewhere, and nothing is generated",
  async () => {
    const before = readdirSync(folder);
    const { exitCode, stdout, stderr } = await basedxl("sample", "--list-schedulers");
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(stdout).toMatch(/^dpmpp_2m +\S.*\(DPMSolverMultistepScheduler, DPM\+\+ 2M\)$/m);
    expect(readdirSync(folder)).toEqual(before);
  },
  timeoutMs,
);

describe("refusing", () => {
  test.each([
    [["sample", "--sead", "1"], 2, "There is no flag --sead. Did you mean --seed?"],
    [["sample", "--steps", "0"], 2, "--num-inference-steps (--steps) must be a whole number"],
    [["sample", "--width", "100"], 2, "the nearest is 96."],
    [["sample", "--gpus", "16", "--width", "64", "--height", "64"], 2, "use 4 ranks (--gpus 4)"],
    [["sample", "--num-images", "65"], 2, "--num-images must be a whole number from 1 to 64"],
    [["sample", "--num-images", "2", "--out", "no/x.png"], 1, "Cannot write no/x-1.png"],
    [["sample", "--out", "x.gif"], 2, "The image x.gif has the ending .gif"],
    [["sample", "--out", "no/x.png"], 1, "Cannot write no/x.png"],
    [["sample", "--save-latents", "no/x.safetensors"], 1, "Cannot write no/x.safetensors"],
    [["sample", "--scheduler", "ddim", "--use-karras-sigmas"], 2, "ddim"],
    [["sample", "--model", "nobody/nothing-at-all"], 1, "HF_HUB_OFFLINE forbids to fetch it"],
    // A machine with GPUs has fewer; one without has none.
    [["sample", "--device", "cuda", "--gpus", "16", ...wide], 1, "GPU"],
    [["smaple"], 2, 'There is no command "smaple". Did you mean sample?'],
    [["--gpus", "2"], 2, "Name a command before --gpus: sample, upscale, serve"],
  ] as const)(
    "%p",
    async (args, exitCode, sentence) => {
      const before = readdirSync(folder);
      const plain = await basedxl(...args);
      expect(plain).toMatchObject({ exitCode, stdout: "" });
      const lines = plain.stderr.trimEnd().split("\n");
      expect(lines.at(-1)).toStartWith("error: ");
      expect(lines.at(-1)).toContain(sentence);
      expect(lines.filter((line) => line.startsWith("error"))).toHaveLength(1);
      expect(plain.stderr).not.toContain("    at ");

      const json = await basedxl(...args, "--json");
      expect(json.exitCode).toBe(exitCode);
      const { error } = onlyObject(json);
      expect(error.message).toContain(sentence);
      expect(error.code).toMatch(/^[a-z-]+$/);
      expect(readdirSync(folder)).toEqual(before);
    },
    timeoutMs,
  );
});

test("a closed pipe or a full disk ends without a stack trace", async () => {
  const main = JSON.stringify(join(root, "src", "main.ts"));
  const shell = async (script: string) => {
    const run = Bun.$`bash -c ${script}`.cwd(folder).nothrow().quiet();
    const { exitCode, stderr } = await run;
    return { exitCode, stderr: stderr.toString() };
  };
  const bun = JSON.stringify(process.execPath);
  const closed = await shell(`set -o pipefail; ${bun} ${main} sample --help | true`);
  expect(closed).toEqual({ exitCode: 1, stderr: "" });
  if (!existsSync("/dev/full")) return;
  const full = await shell(`${bun} ${main} sample --help > /dev/full`);
  expect(full.exitCode).toBe(1);
  expect(full.stderr).toMatch(/^error: Cannot write to standard output: ENOSPC.*\n$/);
});

describe("help", () => {
  test("without a command, and for each way of asking", async () => {
    const main = await basedxl();
    expect(main).toMatchObject({ exitCode: 0, stderr: "" });
    expect(main.stdout).toContain("Usage: basedxl <command> [flags]");
    expect(await basedxl("--help")).toEqual(main);
    const sample = await basedxl("sample", "--steps", "0", "--help");
    expect(sample).toMatchObject({ exitCode: 0, stderr: "" });
    expect(sample.stdout).toContain("Usage: basedxl sample [prompt] [flags]");
    expect((await basedxl("--version")).stdout).toStartWith(`basedxl ${packageJson.version}\nBun `);
  });
});

describe("stopping", () => {
  const endless = ["--steps", "1000"];

  /** Signals twice after a while past `word`, as `bun run` does, and waits for the end. */
  async function stop(signal: NodeJS.Signals, args: readonly string[], word = "\nGenerating ") {
    const child = start(["sample", "--device", "cpu", ...args]);
    const stdout = new Response(child.stdout).text();
    const decoder = new TextDecoder();
    let stderr = "";
    let signalMs = 0;
    for await (const chunk of child.stderr) {
      stderr += decoder.decode(chunk);
      if (signalMs > 0 || !stderr.includes(word)) continue;
      await Bun.sleep(400);
      signalMs = performance.now();
      child.kill(signal);
      await Bun.sleep(50);
      child.kill(signal);
    }
    const exitCode = await child.exited;
    return { exitCode, stdout: await stdout, stderr, tookMs: performance.now() - signalMs };
  }

  test(
    "Ctrl-C is reported once, takes a second at most and keeps the old image",
    async () => {
      const path = join(folder, "stopped.png");
      writeFileSync(path, "an old file");
      const before = readdirSync(folder);
      const { exitCode, stdout, stderr, tookMs } = await stop("SIGINT", [
        ...endless,
        ...["--out", "stopped.png"],
      ]);
      expect(stderr.match(/Stopping \.\.\./g)).toHaveLength(1);
      expect(stderr).toEndWith("Stopping ...\n");
      expect(stdout).toBe("");
      expect(exitCode).toBe(130);
      expect(tookMs).toBeLessThan(1000);
      expect(readFileSync(path, "utf8")).toBe("an old file");
      expect(readdirSync(folder)).toEqual(before);
    },
    timeoutMs,
  );

  test(
    "Ctrl-C among several images keeps those that are written",
    async () => {
      const before = readdirSync(folder);
      const args = ["--steps", "40", "--num-images", "64", "--out", "kept.png"];
      const { exitCode, stderr } = await stop("SIGINT", args, "Wrote kept-1.png");
      expect(exitCode).toBe(130);
      const written = readdirSync(folder).filter((name) => !before.includes(name));
      expect(written).toContain("kept-1.png");
      expect(written.length).toBeLessThan(64);
      expect(written.toSorted()).toEqual(
        Array.from(stderr.matchAll(/^Wrote (kept-\d+\.png), seed \d+\.$/gm), ([, name]) =>
          String(name),
        ).toSorted(),
      );
      for (const name of written) {
        expect((await sharp(join(folder, name)).metadata()).width).toBe(256);
      }
      expect(stderr).toMatch(/^Step \d+\/40 of image 1 of 64, /m);
    },
    timeoutMs,
  );

  test(
    "SIGTERM ends with 143, and is reported with --json",
    async () => {
      const ended = await stop("SIGTERM", [...endless, "--out", "terminated.png", "--json"]);
      expect(ended.exitCode).toBe(143);
      expect(onlyObject(ended).error.code).toBe("cancelled");
      expect(existsSync(join(folder, "terminated.png"))).toBe(false);
    },
    timeoutMs,
  );
});
