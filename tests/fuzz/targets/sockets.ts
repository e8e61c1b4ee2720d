/**
 * What clients of ComfyUI send on their sockets, and the ids by which they come back.
 */
import type { WSContext } from "hono/ws";
import { Sockets } from "../../../src/serve/dialects/comfyui/sockets.ts";
import { FakeJobs } from "../../support/fake-jobs.ts";
import { mutateJson, mutateText } from "../mutate.ts";
import { target } from "../target.ts";

const sockets = new Sockets(new FakeJobs());
const flags = { type: "feature_flags", data: { supports_preview_metadata: true } };

export const socketTarget = target(
  "sockets",
  (random) => ({
    id: mutateText(random, "client", ["__proto__", "constructor", "/", "\0"]),
    messages: [mutateJson(random, flags, ["type", "data"]), mutateJson(random, flags)],
    isBinary: random.once(20),
  }),
  ({ id, messages, isBinary }) => {
    const sent: unknown[] = [];
    const socket = { raw: {}, send: (text: unknown) => sent.push(text) } as unknown as WSContext;
    sockets.open(id, socket);
    for (const text of messages) sockets.receive(id, isBinary ? Buffer.from(text) : text);
    sockets.close(id, socket);
    if (sent.length === 0 || sent.length > 2) throw new Error(`${sent.length} messages were sent`);
    sockets.receive(id, messages[0]);
  },
);
