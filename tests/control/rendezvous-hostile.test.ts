/**
 * A rendezvous with someone who speaks its protocol and means harm: proofs that were made for
 * something else, answers in the place of process 0, and more connections than anybody needs.
 */
import { describe, expect, test } from "bun:test";
import { EventEmitter } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { Connection, connectionLimits } from "../../src/distributed/connection.ts";
import { protocolVersion } from "../../src/distributed/rendezvous/protocol.ts";
import { proofOf, type Side } from "../../src/distributed/rendezvous/secret.ts";
import { rendezvous } from "../../src/distributed/rendezvous.ts";
import { refusal } from "../support/refusal.ts";
import { freePort, id, optionsOf } from "../support/rendezvous.ts";

const secret = "correct horse";

describe("process 0", () => {
  test("believes a proof of every part that is said, on this connection, alone", async () => {
    const port = freePort();
    const refusals: string[] = [];
    const onRefusal = (sentence: string) => refusals.push(sentence);
    const zero = rendezvous({ ...optionsOf(port, 0, 3), secret, onRefusal, limitMs: 30_000 });
    await Bun.sleep(20);
    const { settings } = optionsOf(port, 1);
    const right = { rank: 1, worldSize: 3, settings, nonce: "n" };
    const earlier = await visit(port, () => null);
    const changes: Partial<typeof right & { side: Side; challenge: string }>[] = [
      { rank: 2 },
      { worldSize: 2 },
      { settings: { ...settings, "--seed": "8" } },
      { nonce: "m" },
      { side: "coordinator" },
      { challenge: earlier.challenge },
    ];
    for (const change of changes) {
      await visit(port, (challenge) => {
        const made = { side: "client" as Side, challenge, ...right, ...change };
        const parts = [made.challenge, made.rank, made.worldSize, made.settings, made.nonce];
        return { ...right, proof: proofOf(secret, made.side, ...parts) };
      });
    }
    const whole = proofOf(secret, "client", "", 1, 3, settings, "n");
    const odd = ["", "0", whole, whole.slice(1), `${whole}0`, "f".repeat(200_000), 7, null, {}, []];
    for (const proof of odd) await visit(port, () => ({ ...right, proof }));
    const refused = "A process that says it is RANK 1 has not the same BASEDXL_SECRET.";
    // It tells of ten alone.
    expect(refusals).toEqual(Array.from({ length: 10 }, () => refused));
    const others = [1, 2].map((index) => rendezvous({ ...optionsOf(port, index, 3), secret }));
    const all = await Promise.all([zero, ...others]);
    await Promise.all(all.map(({ peers }) => peers.finish()));
    expect(all.map(({ peers }) => peers.failure)).toEqual([null, null, null]);
  });

  test("meets the others among thousands of silent connections", async () => {
    const port = freePort();
    const zero = rendezvous(optionsOf(port, 0));
    await Bun.sleep(20);
    const sockets = Array.from({ length: 2000 }, () => connect(port, "127.0.0.1"));
    for (const socket of sockets) socket.on("error", () => {}).resume();
    const both = await Promise.all([zero, rendezvous(optionsOf(port, 1))]);
    await Promise.all(both.map(({ peers }) => peers.finish()));
    for (const socket of sockets) socket.destroy();
  });
});

describe("what stands in the place of process 0", () => {
  const challenge = { basedxl: protocolVersion, challenge: "c", asksSecret: true };
  const welcome = { welcome: { ncclUniqueId: id, seed: "1" }, proof: "" };
  const line = (message: unknown) => `${JSON.stringify(message)}\n`;
  const nothingOurs = "Process 0 answered what no BasedXL of this version does.";
  const noMessage = "Nothing that BasedXL says came from";
  test.each([
    ["a welcome without a challenge", line(welcome), nothingOurs],
    ["a welcome without a proof", line(challenge) + line(welcome), nothingOurs],
    ["a second challenge", line(challenge) + line(challenge), nothingOurs],
    ["a challenge without an end", line({ ...challenge, challenge: "c".repeat(101) }), nothingOurs],
    ["a challenge that is a number", line({ ...challenge, challenge: 7 }), nothingOurs],
    ["a question that is no answer", line({ ...challenge, asksSecret: "yes" }), nothingOurs],
    ["another version", line({ ...challenge, basedxl: 99 }), nothingOurs],
    ["no secret wanted", line({ ...challenge, asksSecret: false }), "Process 0 knows no secret"],
    ["an end before a beginning", line({ ended: "all" }), nothingOurs],
    ["a line of 300,000 characters", line({ refused: "x".repeat(300_000) }), noMessage],
    ["100,000 brackets", `${"[".repeat(100_000)}\n`, noMessage],
    ["heartbeats alone", line({ heartbeat: 1 }).repeat(1000), "within 1 s"],
  ])("%s is an error in one sentence", async (_, words, sentence) => {
    const server = createServer((socket) => {
      socket.on("error", () => {}).resume();
      socket.write(words);
    });
    const port = freePort();
    server.listen(port, "127.0.0.1");
    const fooled = () => rendezvous({ ...optionsOf(port, 1), secret, limitMs: 1_000 });
    const message = await refusal(fooled, "rank-failed");
    server.close();
    expect(message).toContain(sentence);
    expect(message).not.toContain("\n");
  });
});

describe("a connection that has ended", () => {
  test("keeps nothing of what still comes", async () => {
    const socket = Object.assign(new EventEmitter(), {
      ...{ setEncoding() {}, setNoDelay() {}, write() {}, end() {}, destroy() {} },
    });
    const messages: object[] = [];
    const handlers = { onMessage: (each: object) => messages.push(each), onEnd() {} };
    const connection = new Connection(socket as unknown as Socket, handlers, connectionLimits);
    const ended = connection.end({ refused: "" });
    for (let i = 0; i < 100; i++) socket.emit("data", '{"a":1}\n'.padEnd(1 << 16, "x"));
    socket.emit("close");
    await ended;
    expect(messages).toEqual([]);
    expect(Reflect.get(connection, "unread")).toEqual([]);
  });
});

/** Answers the challenge with what `say` makes of it, and resolves once the connection is over. */
async function visit(port: number, say: (challenge: string) => object | null) {
  const socket = connect(port, "127.0.0.1");
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.on("close", resolve);
  socket.on("error", () => {});
  let text = "";
  let challenge = "";
  socket.on("data", (bytes) => {
    text += bytes;
    if (challenge !== "" || !text.includes("\n")) return;
    ({ challenge } = JSON.parse(text.split("\n")[0]!));
    const hello = say(challenge);
    if (hello === null) socket.destroy();
    else socket.write(`${JSON.stringify({ basedxl: protocolVersion, ...hello })}\n`);
  });
  await promise;
  return { challenge };
}
