/**
 * A image drawn by two processes that meet as two machines do, on the emulated driver, whose NCCL
 * passes messages from process to process: the same bits as one process with as many ranks.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { imagePaths } from "../../src/commands/sample-files.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { draw, latentsOf } from "../support/draw.ts";
import { emulated } from "../support/emulator.ts";
import { readSafetensors } from "../support/safetensors.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);

const root = join(import.meta.dir, "../..");
const modelPath = join(root, "tests/fixtures/golden/model");
const model = await openModelFolder(modelPath);
const folder = mkdtempSync(join(tmpdir(), "basedxl-machines-"));
afterAll(() => rmSync(folder, { recursive: true }));

const work = { model, width: 32, height: 64, stepCount: 3, warmupSteps: 1 };
const flags = [
  ["--model", modelPath, "--device", "cuda-emulated", "--scheduler", "euler"],
  ["--width", "32", "--height", "64", "--warmup-steps", "1", "--predict-borders"],
  ["--guidance-scale", "5", "--negative-prompt", "blurry", "a red circle"],
].flat();

/** The command as machine `index` of two. */
function start(index: number, port: number, more: string[]) {
  return Bun.spawn([process.execPath, join(root, "src/main.ts"), "sample", ...flags, ...more], {
    env: {
      ...process.env,
      RANK: String(index),
      WORLD_SIZE: "2",
      MASTER_ADDR: "127.0.0.1",
      MASTER_PORT: String(port),
      TMPDIR: folder,
    },
    cwd: folder,
    stdout: "pipe",
    stderr: "pipe",
  });
}

async function ended({ exited, stderr }: ReturnType<typeof start>) {
  const [exitCode, text] = await Promise.all([exited, new Response(stderr).text()]);
  return { exitCode, text };
}

function freePort(): number {
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = server;
  server.stop(true);
  return port;
}

describe("two machines draw what one does, bit for bit", () => {
  const cuts = [
    ...(["corrected_async_gn", "sync_gn", "full_sync"] as const).map((syncMode) => ({
      syncMode,
      gpus: 1,
      splitBatch: false,
      seeds: [11n],
    })),
    { syncMode: "corrected_async_gn" as const, gpus: 2, splitBatch: true, seeds: [11n, 12n] },
  ];

  test.each(cuts)("$syncMode, $gpus GPUs each", async (cut) => {
    const { syncMode, gpus, splitBatch, seeds } = cut;
    const port = freePort();
    const latentsPath = join(folder, `${port}.safetensors`);
    const more = [
      ["--steps", "3", "--seed", "11", "--num-images", String(seeds.length), "--batch-size", "2"],
      ["--gpus", String(gpus), "--sync-mode", syncMode],
      splitBatch ? [] : ["--no-split-batch"],
      ["--out", join(folder, `${port}.png`), "--save-latents", latentsPath],
    ].flat();
    const [zero, one] = await Promise.all([0, 1].map((index) => ended(start(index, port, more))));
    expect(zero, zero?.text).toMatchObject({ exitCode: 0 });
    expect(one, one?.text).toMatchObject({ exitCode: 0 });
    const ranks = gpus === 1 ? "rank 1" : "ranks 2 and 3";
    expect(one?.text).toContain(`Machine 1 (${ranks}) has drawn its part`);

    const gpu = gpus === 1 ? emulated({ share: false, transport: "nccl" }) : emulated();
    const alone = await draw({ ...work, syncMode, splitBatch, seeds, rankCount: 2 * gpus, gpu });
    const latents = readSafetensors(latentsPath).get("latents")?.data;
    expect(latents).toEqual(latentsOf(alone));
    for (const [i, path] of imagePaths(join(folder, `${port}.png`), seeds.length).entries()) {
      const written = await sharp(path).raw().toBuffer();
      expect(written.equals(Buffer.from(alone.images[i] ?? []))).toBe(true);
    }
    // The emulator's messages between processes are files.
    expect(readdirSync(folder).filter((name) => name.startsWith("basedxl-nccl-"))).toEqual([]);
  });
});

test("flags that differ end both before anything loads", async () => {
  const port = freePort();
  const out = ["--out", join(folder, "none.png"), "--no-split-batch"];
  const both = [start(0, port, [...out, "--steps", "3"]), start(1, port, [...out, "--steps", "4"])];
  for (const { exitCode, text } of await Promise.all(both.map(ended))) {
    expect(exitCode).toBe(1);
    expect(text).toContain("Machine 1 and machine 0 differ in --num-inference-steps (4 and 3)");
  }
});

test("a machine that is killed while it draws ends the other, which names it", async () => {
  const port = freePort();
  const more = ["--out", join(folder, "none.png"), "--no-split-batch", "--steps", "500"];
  const zero = start(0, port, more);
  const one = start(1, port, more);
  const outcome = ended(zero);
  const reader = one.stderr.getReader();
  let said = "";
  // Told once all ranks have met and the weights are there.
  while (!said.includes("2 ranks = "))
    said += new TextDecoder().decode((await reader.read()).value);
  one.kill("SIGKILL");
  const { exitCode, text } = await outcome;
  expect(exitCode).toBe(1);
  expect(text).toContain("Machine 1 (rank 1) went away before the image was done");
  expect(readdirSync(folder)).not.toContain("none.png");
});
