/**
 * `basedxl info` as users run it: what an image says of itself, what a model file is, and refusals
 * in one sentence.
 */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeImage } from "../../src/image.ts";

const root = join(import.meta.dir, "../..");
const folder = mkdtempSync(join(tmpdir(), "basedxl-info-"));
afterAll(() => rmSync(folder, { recursive: true }));
const timeoutMs = 60_000;

async function info(...args: string[]) {
  const env = { ...process.env, BASEDXL_CACHE_DIR: join(folder, "cache") };
  const command = [process.execPath, join(root, "src", "main.ts"), "info", ...args];
  const child = Bun.spawn(command, { cwd: folder, env, stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  return { stdout, stderr, exitCode: await child.exited };
}

const parameters =
  "a fox\nNegative prompt: blurry\nSteps: 20, Sampler: Restart, Seed: 9223372036854775807, \
Size: 1024x1024, Model: \x1b[31mred";

test(
  "an image of A1111: its text, and what is not understood",
  async () => {
    const path = join(folder, "a.webp");
    await writeImage(path, new Uint8Array(3 * 6), 3, 2, { texts: { parameters, own: "no JSON" } });
    const { stdout, exitCode } = await info("a.webp");
    expect(exitCode).toBe(0);
    expect(stdout.split("\n")).toEqual([
      expect.stringMatching(/^\S+a\.webp: webp, 3x2, \d+ B$/),
      "Written by A1111.",
      "",
      ...parameters.replace("\x1b", "\\u001b").split("\n"),
      "",
      "Texts in the file: MakerNote (15 B), UserComment (118 B).",
      'The sampler "Restart" is not known: dpmpp_2m is used.',
      "",
    ]);
    const json = JSON.parse((await info("a.webp", "--json")).stdout);
    expect(json).toMatchObject({
      ...{ kind: "image", format: "webp", width: 3, height: 2, tool: "A1111" },
      settings: { prompt: "a fox", seed: "9223372036854775807", width: 1024, rng: "cuda" },
      model: { name: "\x1b[31mred", hash: null },
      texts: { UserComment: parameters },
    });
  },
  timeoutMs,
);

test(
  "a LoRA: kind, hashes and training",
  async () => {
    const key = "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight";
    const header = JSON.stringify({
      __metadata__: {
        ss_network_dim: "8",
        ss_tag_frequency: JSON.stringify({ "10_fox": { fox: 12, snow: 3 }, b: { fox: 1 } }),
      },
      [key]: { dtype: "F16", shape: [1], data_offsets: [0, 2] },
    });
    const length = Buffer.alloc(8);
    length.writeUInt32LE(header.length);
    const bytes = Buffer.concat([length, Buffer.from(header), Buffer.alloc(2)]);
    writeFileSync(join(folder, "ink.safetensors"), bytes);
    const { stdout, exitCode } = await info("ink.safetensors");
    expect(exitCode).toBe(0);
    const hash = (data: Uint8Array) => new Bun.CryptoHasher("sha256").update(data).digest("hex");
    expect(stdout.split("\n").slice(1)).toEqual([
      `${bytes.length} B, 1 tensors: 1 F16`,
      `AutoV2 ${hash(bytes).slice(0, 10)}, AutoV3 ${hash(Buffer.alloc(2)).slice(0, 12)}`,
      `SHA-256 ${hash(bytes)}`,
      "",
      "Trained with: fox (13), snow (3)",
      "",
      "ss_network_dim: 8",
      "",
    ]);
    expect(stdout).toMatch(/ink\.safetensors: lora, SDXL/);
    const quick = JSON.parse((await info("ink.safetensors", "--no-hash", "--json")).stdout);
    expect(quick).toMatchObject({ kind: "lora", tensors: 1, words: { fox: 13 } });
    expect(quick.hash).toBeUndefined();
  },
  timeoutMs,
);

test(
  "what it cannot read is one sentence",
  async () => {
    writeFileSync(join(folder, "b.png"), "no image");
    writeFileSync(join(folder, "c.safetensors"), "no model");
    for (const name of ["b.png", "c.safetensors", "none.png", "."]) {
      const { stdout, stderr, exitCode } = await info(name);
      expect({ stdout, exitCode }).toEqual({ stdout: "", exitCode: 1 });
      expect(stderr).toMatch(/^error: [^\n]+\.\n$/);
    }
    expect((await info()).exitCode).toBe(2);
  },
  timeoutMs,
);
