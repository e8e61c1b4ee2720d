/**
 * `basedxl sample` with textual inversion: from a folder of embeddings and by flag, against
 * diffusers' latents, and the same on one rank and two.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { relativeL2From } from "../../src/bench/support/references.ts";
import { readSafetensors, tensorOf } from "../../src/bench/support/safetensors.ts";
import {
  embeddingFiles,
  embeddingTensors,
  newFolder,
  notes,
  removeEmbeddings,
  writeTensors,
  zeros,
} from "../support/embedding-files.ts";

afterAll(removeEmbeddings);

const root = join(import.meta.dir, "../..");
const fixtures = join(import.meta.dir, "../fixtures");
const recorded = readSafetensors(join(fixtures, "embeddings.safetensors"));
const work = newFolder();
const files = embeddingFiles();
const folder = join(work, "models/embeddings");
mkdirSync(folder, { recursive: true });
for (const [name, path] of files) cpSync(path, join(folder, `${name}.safetensors`));
writeTensors(folder, "photo.safetensors", new Map([["emb_params", zeros(1, 768)]]));

/** Starting Bun, loading and a few steps take seconds on a slow machine. */
const timeoutMs = 60_000;
const [run] = notes.runs;

async function sample(...args: string[]) {
  const { BASEDXL_MODELS_DIR: _, ...env } = process.env;
  const latents = join(work, "latents.safetensors");
  const out = ["--out", join(work, "a.png"), "--save-latents", latents, "--json"];
  const model = ["--device", "cpu", "--model", join(fixtures, "golden/model"), ...out];
  const command = [process.execPath, join(root, "src", "main.ts"), "sample", ...model, ...args];
  const child = Bun.spawn(command, { cwd: work, env, stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  const report = JSON.parse(stdout);
  if (child.exitCode !== 0) return { ...report, stderr, latents: new Float32Array() };
  return { ...report, stderr, latents: tensorOf(readSafetensors(latents), "latents").data };
}

const settings = [
  ...["--steps", String(run.steps), "--guidance-scale", String(run.guidance)],
  ...["--seed", String(run.seed), "--scheduler", "euler", "--width", "256", "--height", "256"],
];
const recordedRun = ["--prompt", run.prompt, "--negative-prompt", run.negative, ...settings];

describe("an image with embeddings", () => {
  const fromFolder = sample(...recordedRun, "--models-dir", join(work, "models"));

  test(
    "is that of diffusers, and --json names what prompts mention",
    async () => {
      const { latents, embeddings, stderr, warnings } = await fromFolder;
      expect(relativeL2From(recorded, "run.euler.latents", latents)).toBeLessThanOrEqual(1e-4);
      const hash = expect.stringMatching(/^[0-9a-f]{12}$/);
      const path = (name: string) => join(folder, `${name}.safetensors`);
      expect(embeddings).toEqual([
        { name: "blot-style", path: path("blot-style"), vectors: 3, hash },
        { name: "bad_mood", path: path("bad_mood"), vectors: 2, hash },
      ]);
      expect(stderr).toContain(`Embedding bad_mood: 2 vectors of ${path("bad_mood")}, `);
      expect(warnings).toEqual([expect.stringMatching(/^"photo" is read as text: .* Diffusion 1/)]);
    },
    timeoutMs,
  );

  test(
    "is the same by flags under other names, with other marks, on two ranks",
    async () => {
      const { latents } = await sample(
        ...["--embedding", `${files.get("blot-style")}=Ink`],
        ...["--embedding", files.get("bad_mood")!, "--embedding", files.get("half")!],
        ...["--prompt", run.prompt.replace("blot-style", "<embed:ink>")],
        ...["--negative-prompt", run.negative.replace("bad_mood", "embedding:BAD_MOOD")],
        ...[...settings, "--gpus", "2"],
      );
      expect(latents).toEqual((await fromFolder).latents);
    },
    timeoutMs,
  );

  test(
    "is the same with embeddings that a LoRA brings along",
    async () => {
      const tensors = new Map([
        ...embeddingTensors("blot-style", "bundle_emb.blot-style."),
        ...embeddingTensors("bad_mood", "bundle_emb.bad_mood."),
        ["lora_unet_conv_in.lora_down.weight", zeros(1, 4, 3, 3)] as const,
        ["lora_unet_conv_in.lora_up.weight", zeros(32, 1, 1, 1)] as const,
      ]);
      const lora = writeTensors(work, "brings.safetensors", tensors);
      const { latents, embeddings } = await sample(...recordedRun, "--lora", lora);
      expect(embeddings.map(({ path }: { path: string }) => path)).toEqual([lora, lora]);
      expect(latents).toEqual((await fromFolder).latents);
    },
    timeoutMs,
  );
});

test(
  "an embedding that no prompt mentions is named, and one that is not there refused",
  async () => {
    const quick = ["--steps", "1", "--width", "64", "--height", "64"];
    const half = files.get("half")!;
    const unused = await sample("a red circle", "--embedding", half, ...quick);
    expect(unused.embeddings).toEqual([]);
    expect(unused.warnings).toEqual([
      `--embedding ${half} is not used: no prompt has the word "half".`,
    ]);
    const missing = await sample("a circle, embedding:halv", "--embedding", half, ...quick);
    expect(missing.error.code).toBe("bad-option");
    expect(missing.error.message).toEndWith("Did you mean half?");
    const gone = await sample("a circle", "--embedding", "gone.safetensors", ...quick);
    expect(gone.error.message).toContain('The embedding "gone.safetensors" does not exist');
  },
  timeoutMs,
);
