/**
 * The rendezvous of processes, from both sides.
 */
import { Connection } from "../../../src/distributed/connection.ts";
import { PeerGroup } from "../../../src/distributed/peer-group.ts";
import { challengeOf, decisionsOf, helloOf } from "../../../src/distributed/rendezvous/protocol.ts";
import { differenceOf } from "../../../src/distributed/settings.ts";
import { expected, id } from "../../support/rendezvous.ts";
import { mutateJson, mutateText } from "../mutate.ts";
import { target } from "../target.ts";

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
