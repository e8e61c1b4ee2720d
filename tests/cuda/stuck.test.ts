/**
 * GPUs that hang or have too little memory, as configured in the emulator: one error message, and
 * the process can generate on another device.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
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
  expect(messages[1]).toContain("An earlier failure ended this session: a GPU did not answer");
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
