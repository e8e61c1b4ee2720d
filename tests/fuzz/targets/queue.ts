/**
 * Messages between servers and workers in Redis, which another version may have written: notices,
 * what workers say of themselves, reports of jobs and what became of them.
 */
import {
  announcementOf,
  noticeOf,
  outcomeOf,
  reportOf,
} from "../../../src/serve/remote/checked.ts";
import { mutateJson } from "../mutate.ts";
import { target } from "../target.ts";

const image = {
  ...{ index: 0, seed: "7", width: 64, height: 64, file: "1-0.png", bytes: 100 },
  type: "image/png",
};
const messages = [
  { type: "cancel", id: "1" },
  { models: { mini: "mini-0123456789ab" }, places: 2 },
  { type: "image", image },
  { type: "preview", index: 0, step: 1, type_: "image/jpeg", data: "AAAA" },
  {
    ...{ type: "progress", stage: "denoise", step: 1, steps: 4, secondsPerStep: 1 },
    ...{ secondsLeft: null, pass: { index: 1, count: 2 } },
  },
  { type: "failed", code: "io", message: "a" },
  { state: "done", images: [image], warnings: ["a"], error: null },
];
const keys = ["type", "by", "position", "layout", "error", "id", "__proto__"];

export const queueTarget = target(
  "queue",
  (random) => mutateJson(random, random.pick(messages), keys),
  (text) => {
    noticeOf(text);
    const models = announcementOf(text)?.models;
    if (models !== undefined) Object.values(models).map((name) => name.length);
    let data: unknown = text;
    try {
      data = JSON.parse(text);
    } catch {}
    const report = reportOf(data);
    if (report?.type === "preview") Uint8Array.fromBase64(report.data);
    for (const each of outcomeOf(data)?.images ?? []) each.file.normalize();
  },
);
