/**
 * The command `verify`: exit codes, wrong flags, and GPUs that compute wrong or crash, by switches
 * of the emulator.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { ended } from "../../src/bench/support/binary.ts";
import { findDriver } from "../../src/doctor/driver.ts";
import { buildEmulator } from "../../src/setup/emulator.ts";

// Each starts a process that emulates a GPU.
setDefaultTimeout(240_000);

await buildEmulator(() => {});
const root = join(import.meta.dir, "../..");

function verify(env: Record<string, string>, ...args: string[]) {
  const command = [process.execPath, join(root, "src", "main.ts"), "verify", ...args];
  const stdio = { stdin: "ignore", stdout: "pipe", stderr: "pipe" } as const;
  return ended(Bun.spawn(command, { env: { ...process.env, ...env }, ...stdio }));
}

const emulated = ["--device", "cuda-emulated", "--quick"];

test("a kernel that computes wrong is found and named, with its shape and seed", async () => {
  const wrong = { BASEDXL_EMULATOR_WRONG: "layer_norm_f16" };
  const only = ["--only", "layerNorm,geglu", "--seed", "5"];
  const { exitCode, stdout } = await verify(wrong, ...emulated, ...only);
  expect(exitCode, stdout).toBe(1);
  const failed = stdout.split("\n").filter((line) => line.startsWith("FAILED"));
  expect(failed).toHaveLength(1);
  expect(failed[0]).toMatch(
    /^FAILED {3}layerNorm, f16: \dx1x\d+x\d+, .* draws failed \(seed \d\)$/,
  );
  // The rest ran: the same in bf16, another operation in both.
  expect(stdout).toContain("ok       layerNorm, bf16: 3 draws");
  expect(stdout).toContain("ok       geglu, bf16: 3 draws");
  expect(stdout).toMatch(/\n\d+ ok, 1 failed, 0 skipped\.\n$/);
});

test("after a kernel that crashes the GPU is opened anew, and the run goes on", async () => {
  const crashing = { BASEDXL_EMULATOR_CRASH: "geglu_f16" };
  const only = ["--only", "geglu,concat", "--json"];
  const { exitCode, stdout } = await verify(crashing, ...emulated, ...only);
  expect(exitCode, stdout).toBe(1);
  const { checks, not_run } = JSON.parse(stdout) as {
    checks: { name: string; type: string; verdict: string; detail: string }[];
    not_run: number;
  };
  expect(not_run).toBe(0);
  for (const { name, type, verdict, detail } of checks) {
    const isHit = /\bgeglu/.test(name) && type === "f16";
    expect({ name, type, verdict }).toEqual({ name, type, verdict: isHit ? "failed" : "ok" });
    if (isHit) expect(detail).toContain("CUDA_ERROR_ILLEGAL_ADDRESS");
  }
});

test("a single GPU skips what takes two, and says why", async () => {
  const one = { BASEDXL_EMULATOR_GPUS: "1" };
  const only = ["--only", "two GPUs,copies"];
  const { exitCode, stdout } = await verify(one, ...emulated, ...only);
  expect(exitCode, stdout).toBe(0);
  expect(stdout).toContain(": NCCL takes no two ranks on one GPU, and there is one\n");
  expect(stdout).toMatch(/\n0 ok, 0 failed, 3 skipped\.\n$/);
});

test("copies between GPUs that bring other bytes fail", async () => {
  const garbled = { BASEDXL_EMULATOR_PEERS: "garbles" };
  const { exitCode, stdout } = await verify(garbled, ...emulated, "--only", "copies between");
  expect(exitCode, stdout).toBe(1);
  expect(stdout).toContain("FAILED   copies between GPUs, 0 to 1: 4 bytes: others arrived");
  expect(stdout).toContain("0 ok, 2 failed");
});

test.skipIf(findDriver(process.env).path !== null)(
  "without a driver nothing runs, and a sentence says what to install",
  async () => {
    const { exitCode, stdout } = await verify({}, "--only", "add");
    expect(exitCode).toBe(1);
    expect(stdout).toMatch(/NVIDIA's driver .*\n0 ok, 0 failed, 0 skipped, \d+ not run\.\n$/);
  },
);

test.each([
  [["--seed", "x"], '--seed must be a whole number, not "x".'],
  [["--device", "cpu"], '--device must be cuda or cuda-emulated, not "cpu".'],
])("%p is refused", async (args, sentence) => {
  const { exitCode, stderr } = await verify({}, ...args);
  expect(exitCode).toBe(2);
  expect(stderr).toContain(sentence);
});
