/**
 * `verify` on the emulated GPU: what it compares there is what it compares on a GPU. Its operations
 * run in the emulator's schedules (zig/backend/cuda/tests/operations.zig), its networks and images
 * here: text encoders, UNet and VAE against recorded outputs of diffusers, CUDA graphs on and off,
 * sizes turned round, two ranks in every mode against the CPU.
 */
import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { verifyGpu } from "../../src/native/verify.ts";
import { emulated } from "../support/emulator.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(400_000);

const root = join(import.meta.dir, "../..");
const emulator = emulated().library ?? "";

interface Report {
  ok: number;
  failed: number;
  skipped: number;
  not_run: number;
  stopped_by: string;
  checks: { name: string; type: string; verdict: string; detail: string; relative_error: number }[];
}

async function verified(only: string, quick = false): Promise<{ agrees: boolean; text: string }> {
  const parts: Uint8Array[] = [];
  const options = { only, quick, json: true, seed: 1n, emulator };
  const agrees = await verifyGpu(options, (text) => parts.push(text));
  return { agrees, text: Buffer.concat(parts).toString() };
}

/** By the command: an emulated GPU computes on one thread, so that processes share the cores. */
async function verifiedByCommand(only: string): Promise<{ agrees: boolean; text: string }> {
  const command = ["verify", "--device", "cuda-emulated", "--json", "--only", only];
  const { stdout, exited } = Bun.spawn([process.execPath, "src/main.ts", ...command], {
    cwd: root,
    stderr: "inherit",
  });
  const [text, exitCode] = await Promise.all([new Response(stdout).text(), exited]);
  return { agrees: exitCode === 0, text };
}

describe("networks and images agree", () => {
  const parts = [
    // Of each on the CPU, in f16 and in bf16.
    ["text encoders,UNet,VAE", 12],
    ["graphs,sizes,copies between", 5],
    ["2 ranks on one GPU", 6],
    ["NCCL", 6],
  ] as const;
  let verifications: ReturnType<typeof verifiedByCommand>[];
  beforeAll(() => {
    verifications = parts.map(([only]) => verifiedByCommand(only));
  });

  test.each(parts.map((part, index) => [...part, index] as const))(
    "%s",
    async (_, count, index) => {
      const { agrees, text } = await verifications[index]!;
      const report = JSON.parse(text) as Report;
      expect(report.checks.filter(({ verdict }) => verdict !== "ok")).toEqual([]);
      expect({ agrees, ok: report.ok, failed: report.failed }).toEqual({
        agrees: true,
        ok: count,
        failed: 0,
      });
    },
  );
});

test("another seed, and every operation by name, quickly", async () => {
  const { agrees, text } = await verified("linear,conv2d,groupNorm,latentStep", true);
  const report = JSON.parse(text) as Report;
  expect(agrees, text).toBe(true);
  expect(report.checks.every(({ detail }) => detail === "3 draws")).toBe(true);
});

test("every operation of the CUDA backend has a check", () => {
  const device = readFileSync(join(root, "zig/backend/cuda.zig"), "utf8");
  const operations = [...device.matchAll(/^ {4}pub const (\w+) = ops_\w+\.\w+;$/gm)].map(
    ([, name]) => name ?? "",
  );
  expect(operations.length).toBeGreaterThan(25);
  const folder = join(root, "zig/verify/ops");
  const checks = readdirSync(folder).map((name) => readFileSync(join(folder, name), "utf8"));
  const missing = operations.filter((name) => !checks.join().includes(`pair.cuda.${name}(`));
  // They are part of every check.
  expect(missing).toEqual(["download", "zero"]);
});

test("a name that no check has is an error", async () => {
  const { agrees, text } = await verified("no such check");
  expect(agrees).toBe(false);
  expect((JSON.parse(text) as Report).stopped_by).toBe("No check has such a name.");
});
