/**
 * What comes over the network beside requests: answers of the hub, and the rendezvous from both
 * sides.
 */

import { Connection } from "../../../src/distributed/connection.ts";
import { PeerGroup } from "../../../src/distributed/peer-group.ts";
import { challengeOf, decisionsOf, helloOf } from "../../../src/distributed/rendezvous/protocol.ts";
import { differenceOf } from "../../../src/distributed/settings.ts";
import { type HubClient, Interrupted } from "../../../src/hub/http.ts";
import { listRepository } from "../../../src/hub/listing.ts";
import { expected, id } from "../../support/rendezvous.ts";
import { mutateJson, mutateText } from "../mutate.ts";
import { target } from "../target.ts";

const commit = "0123456789abcdef0123456789abcdef01234567";
const listing = [
  { type: "file", path: "model_index.json", size: 10, oid: commit },
  { type: "directory", path: "unet", size: 0, oid: commit },
  {
    ...{ type: "file", path: "unet/a.safetensors", size: 100, oid: commit },
    lfs: { oid: "ab".repeat(32), size: 100, pointerSize: 130 },
  },
];
const info = { id: "a/b", modelId: "a/b", sha: commit, private: false, downloads: 1, likes: 1 };

let answers: string[] = [];
const hub = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch: () =>
    new Response(answers.shift() ?? "[]", { headers: { "Content-Type": "application/json" } }),
});
hub.unref();

function client(): HubClient {
  return {
    settings: { endpoint: hub.url.origin, token: null, pauseMs: 0 } as never,
    signal: undefined,
    say() {},
  };
}

export const hubTarget = target(
  "hub",
  (random) => {
    const which = random.below(4);
    const keys = ["lfs", "xetHash", "path", "oid", "size", "sha", "type"];
    return [
      which === 0 ? mutateJson(random, info, keys) : JSON.stringify(info),
      which === 0 ? JSON.stringify(listing) : mutateJson(random, listing, keys),
    ];
  },
  async (texts) => {
    answers = [...texts];
    try {
      await listRepository(client(), "a/b", "main");
    } catch (error) {
      if (error instanceof Interrupted) throw error.refusal;
      throw error;
    }
  },
);

const messages: unknown[] = [
  { basedxl: 3, rank: 1, worldSize: 2, settings: { "--seed": "7" }, nonce: "n", proof: "" },
  { basedxl: 3, challenge: "c", asksSecret: false },
  { welcome: { ncclUniqueId: id, seed: "7" }, proof: "" },
  { refused: "no" },
  { failed: "GPU 0 failed." },
  { ended: "Process 0 failed." },
  { done: true },
  { heartbeat: 1 },
];
const keys = ["basedxl", "welcome", "refused", "failed", "ended", "done", "settings", "challenge"];

/** Lines as both sides read them, in pieces; nothing of them may throw. */
export const rendezvousTarget = target(
  "rendezvous",
  (random) => {
    const lines = Array.from({ length: 1 + random.below(3) }, () =>
      mutateJson(random, random.pick(messages), keys),
    );
    const text = `${lines.join("\n")}\n`;
    return random.once(4) ? mutateText(random, text, ["\n", "{", "}", "\0"]) : text;
  },
  (text) => {
    const peers = new PeerGroup(0, (index) => `Process ${index}`);
    const fake = { on() {}, setEncoding() {}, setNoDelay() {}, destroy() {}, write() {} };
    const connection = new Connection(
      fake as never,
      {
        onMessage(message) {
          const hello = helloOf(message);
          if (hello !== null) differenceOf({ "--seed": "7" }, hello.settings, hello.rank);
          challengeOf(message);
          decisionsOf(message.welcome, expected);
          peers.receive(1, message);
        },
        onEnd() {},
      },
      { heartbeatMs: 2 ** 30, silenceMs: 2 ** 30 },
    );
    // What the socket would call.
    for (let at = 0; at < text.length; at += 7) {
      (connection as unknown as { read(text: string): void }).read(text.slice(at, at + 7));
    }
    (connection as unknown as { finish(reason: string): void }).finish("done");
    const failure = peers.failure;
    if (failure !== null) throw failure;
  },
);
