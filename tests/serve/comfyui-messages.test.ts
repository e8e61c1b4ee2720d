/**
 * The events of a job of two models as the messages of ComfyUI's nodes.
 */
import { expect, test } from "bun:test";
import type { ComfyData } from "../../src/serve/dialects/comfyui/job-data.ts";
import { JobMessages } from "../../src/serve/dialects/comfyui/messages.ts";
import type { JobEvent, JobView } from "../../src/serve/jobs/types.ts";
import { refinedPrompt } from "../support/comfy-prompt.ts";

const order = ["4", "6", "7", "5", "10", "12", "15", "16", "11", "17", "19"];
const data: ComfyData = {
  ...{ number: 1, prompt: refinedPrompt() as ComfyData["prompt"], extraData: {}, order },
  ...{ outputs: ["19"], sampler: "11", first: "10", firstSteps: 3, decode: "17" },
};
const job = { id: "a", spec: { request: { imageCount: 1 } } } as JobView;

test("steps are those of the sampler that takes them", () => {
  const messages = new JobMessages(job, data);
  const shown: unknown[] = [];
  const take = (event: object) => {
    for (const message of messages.of({ id: 0, jobId: "a", at: 0, ...event } as JobEvent, job)) {
      if (!("type" in message) || message.type !== "progress") continue;
      const { node, value, max } = message.data as Record<string, unknown>;
      shown.push([node, value, max]);
    }
  };
  take({ type: "start", layout: "" });
  for (const step of [0, 1, 3, 4, 5]) take({ type: "progress", stage: "denoise", step, steps: 5 });
  expect(shown).toEqual([
    ["10", 1, 3],
    ["10", 3, 3],
    ["11", 1, 2],
    ["11", 2, 2],
  ]);
  expect(messages.current).toBe("11");
});
