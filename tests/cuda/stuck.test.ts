/**
 * GPUs that hang or have too little memory, as configured in the emulator: one error message, and
 * the process can generate on another device.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { probeDevice } from "../../src/native/device-info.ts";
import { emulated } from "../support/emulator.ts";
import { runStuck } from "../support/stuck-run.ts";

setDefaultTimeout(120_000);

const size = { width: 32, height: 64, gpu: emulated() };
const imageBytes = 32 * 32 * 3;

test("a queue that never ends is given up, its GPU is not used again, and closing ends", () => {
  const { messages, drawnBytes } = runStuck(
    { ...size, does: "wait" },
    { BASEDXL_EMULATOR_HANG: "latent_step_f16" },
  );
  expect(messages).toHaveLength(2);
  expect(messages[0]).toContain("Rank 0 stalled on GPU 0: its stream did not finish within 0.4 s.");
  expect(messages[1]).toContain(
    "An earlier failure ended this session: a GPU crashed or did not answer",
  );
  expect(drawnBytes).toBe(imageBytes);
});

test("closing ends where a call into the driver does not", () => {
  const { messages, drawnBytes } = runStuck(
    { ...size, does: "leave" },
    { BASEDXL_EMULATOR_BLOCK: "latent_step_f16" },
  );
  expect(messages).toEqual(["the session is closed"]);
  expect(drawnBytes).toBe(imageBytes);
});

test("closing while a queue never ends gives it up", () => {
  const { drawnBytes } = runStuck(
    { ...size, does: "leave" },
    { BASEDXL_EMULATOR_HANG: "latent_step_f16" },
  );
  expect(drawnBytes).toBe(imageBytes);
});

test("where only the decode is too large, tiles are named", () => {
  const large = { ...size, width: 2048, height: 2048, does: "open" } as const;
  const [tight] = runStuck(large, { BASEDXL_EMULATOR_MEMORY_MIB: "600" }).messages;
  expect(tight).toMatch(
    /and 0\.\d+ GiB are free\. What fits: --vae-tiling, or a size of \d+x\d+\./,
  );
  const [none] = runStuck(large, { BASEDXL_EMULATOR_MEMORY_MIB: "200" }).messages;
  expect(none).toMatch(/ are free\. What fits: a size of \d+x\d+\.$/);
});

describe("peer copies that do not work", () => {
  const two = { width: 32, height: 64, rankCount: 2, gpu: emulated({ share: false }) };

  test.each([
    { fault: "garbles", says: "Copies from GPU 0 to GPU 1 bring other bytes." },
    { fault: "hangs", says: "Copies from GPU 0 to GPU 1 do not end." },
  ])("$fault: NCCL serves, said in a sentence", ({ fault, says }) => {
    const run = runStuck({ ...two, does: "grow" }, { BASEDXL_EMULATOR_PEERS: fault });
    expect(run.messages).toHaveLength(1);
    expect(run.messages[0]).toStartWith(`${says} The ranks use NCCL; to mend them, switch IOMMU`);
    expect(run.drawnBytes).toBe(imageBytes);
  });

  test("where they were asked for, the other transport is named", () => {
    const gpu = { ...two.gpu, transport: "peer" as const };
    const run = runStuck({ ...two, gpu, does: "open" }, { BASEDXL_EMULATOR_PEERS: "garbles" });
    expect(run.messages).toHaveLength(1);
    expect(run.messages[0]).toContain("bring other bytes. --transport nccl does without them");
  });
});

test("a driver that is older than the kernels is refused by name and number", () => {
  const { cudaKernels } = probeDevice();
  const messageOf = (version: string) =>
    runStuck({ ...size, does: "open" }, { BASEDXL_EMULATOR_DRIVER: version }).messages[0];
  expect(messageOf("11040")).toContain("NVIDIA's driver 11.4, and 12.0 or newer is needed");
  const [, toolkit] = /\(CUDA (\d+)\.\d, driver \d+ or newer\)$/.exec(cudaKernels) ?? [];
  // Kernels of CUDA 12 load on a driver of CUDA 12.
  if (Number(toolkit ?? 0) < 13) return;
  const message = messageOf("12040");
  expect(message).toStartWith(`The kernels were built by CUDA ${toolkit}.`);
  expect(message).toContain(" or newer; this machine's driver is of CUDA 12.4: update ");
});
