/**
 * The real cuDNN, asked without a GPU: every convolution of SDXL gets one fused kernel, and none of
 * them is compiled while the first image waits; every attention gets one that is.
 */
import { expect, test } from "bun:test";
import {
  askCudnn,
  convolutionsOf,
  firstAttentionsOf,
  gpuNames,
  isFused,
} from "../../src/bench/cudnn-plans.ts";
import { withModel } from "../../src/bench/gpu-work.ts";
import { isEmulatedDriver } from "../support/driver-folder.ts";

/** A build of one program, and some seconds of cuDNN. */
const timeoutMs = 300_000;

test.skipIf(isEmulatedDriver())(
  "every convolution of SDXL has a precompiled fused kernel on five GPUs",
  async () => {
    const questions = await withModel(undefined, async (model) => convolutionsOf(model));
    expect(questions.length).toBeGreaterThan(300);
    const result = await askCudnn(questions);
    if ("missing" in result) {
      process.stderr.write(`Skipped: ${result.missing}\n`);
      return;
    }
    expect(gpuNames).toEqual(["a100", "b200", "h200", "rtx4090", "rtx5090"]);
    for (const [i, answers] of result.answers.entries()) {
      for (const [j, { how, compiled, plans }] of answers.entries()) {
        const asked = `${gpuNames[j]}: ${JSON.stringify(questions[i])}`;
        expect({ asked, isFused: isFused(how), compiled }).toEqual({
          asked,
          isFused: true,
          compiled: 0,
        });
        // There is something to choose from.
        expect(plans).toBeGreaterThan(1);
      }
    }
  },
  timeoutMs,
);

test.skipIf(isEmulatedDriver())(
  "every attention of 1024x1024 has a kernel of cuDNN on five GPUs",
  async () => {
    const questions = await withModel(undefined, async (model) => firstAttentionsOf(model));
    // Of one rank and of two: over 64x64 and 32x32 positions, of the image and of the prompt.
    expect(questions.length).toBe(8);
    const result = await askCudnn(questions);
    if ("missing" in result) {
      process.stderr.write(`Skipped: ${result.missing}\n`);
      return;
    }
    for (const [i, answers] of result.answers.entries()) {
      for (const [j, { how, compiled }] of answers.entries()) {
        const asked = `${gpuNames[j]}: ${JSON.stringify(questions[i])}`;
        // cuDNN has no attention that it does not compile: one kernel for each, not the 16 offered.
        expect({ asked, how, compiled }).toEqual({ asked, how: "sdpa", compiled: 1 });
      }
    }
  },
  timeoutMs,
);
