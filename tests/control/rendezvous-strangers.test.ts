/**
 * Strangers at the port of a rendezvous: who is sent away, what a secret proves on both sides, and
 * that neither floods nor drips keep the processes from each other.
 */
import { describe, expect, test } from "bun:test";
import { type AddressInfo, connect, createServer } from "node:net";
import { decisionsOf, protocolVersion } from "../../src/distributed/rendezvous/protocol.ts";
import { rendezvous } from "../../src/distributed/rendezvous.ts";
import { refusal } from "../support/refusal.ts";
import { expected, freePort, id, optionsOf } from "../support/rendezvous.ts";

describe("a rendezvous with strangers", () => {
  test("strangers are sent away, and the rendezvous goes on", async () => {
    const port = freePort();
    const refusals: string[] = [];
    const onRefusal = (sentence: string) => refusals.push(sentence);
    const first = rendezvous({ ...optionsOf(port, 0), onRefusal });
    await Bun.sleep(20);
    const hello = { basedxl: protocolVersion, rank: 1, worldSize: 2, nonce: "n" };
    const odd = { toString: 1, valueOf: 1 };
    for (const words of [
      "GET / HTTP/1.1\r\n\r\n",
      '{"rank":1}\n',
      "[1]\n",
      `${"[".repeat(100_000)}\n`,
      '{"basedxl":1,"rank":-1}\n',
      '{"basedxl":1,"rank":5}\n',
      ...[
        { ...hello, basedxl: odd },
        { ...hello, rank: odd },
        { ...hello, rank: 5, settings: {} },
        { ...hello, rank: 0, settings: {} },
        { ...hello, worldSize: odd },
        { ...hello, worldSize: "\u001b[2J".repeat(1000) },
        { ...hello, settings: { "--seed": odd } },
        { ...hello, settings: [[[["--seed"]]]] },
        { ...hello, settings: { "--seed": "\u001b]0;title\u0007", "--other": "1" } },
        { ...hello, nonce: odd, settings: {} },
        { ended: "all", failed: "all", done: true },
      ].map((message) => `${JSON.stringify(message)}\n`),
    ]) {
      await visit(port, words);
    }
    const [{ peers }, other] = await Promise.all([first, rendezvous(optionsOf(port, 1))]);
    await Promise.all([peers.finish(), other.peers.finish()]);
    expect(peers.failure).toBeNull();
    expect(refusals.length).toBeGreaterThan(0);
    expect(refusals.join()).not.toMatch(/\p{Cc}/u);
  });

  test("silent connections do not block the others", async () => {
    const port = freePort();
    const first = rendezvous(optionsOf(port, 0));
    await Bun.sleep(20);
    const sockets = Array.from({ length: 100 }, () => connect(port, "127.0.0.1"));
    for (const socket of sockets) socket.on("error", () => {});
    const both = await Promise.all([first, rendezvous(optionsOf(port, 1))]);
    await Promise.all(both.map(({ peers }) => peers.finish()));
    for (const socket of sockets) socket.destroy();
  });

  test("a secret keeps out who does not know it, on both sides", async () => {
    const port = freePort();
    const secret = "correct horse";
    const zero = rendezvous({ ...optionsOf(port, 0), secret });
    const without = () => rendezvous(optionsOf(port, 1));
    expect(await refusal(without, "rank-failed")).toContain("BASEDXL_SECRET");
    const wrong = () => rendezvous({ ...optionsOf(port, 1), secret: "battery staple" });
    expect(await refusal(wrong, "rank-failed")).toContain("not the same BASEDXL_SECRET");
    const both = await Promise.all([zero, rendezvous({ ...optionsOf(port, 1), secret })]);
    await Promise.all(both.map(({ peers }) => peers.finish()));
    const short = () => rendezvous({ ...optionsOf(port, 1), secret: "short" });
    expect(await refusal(short, "bad-option")).toContain("must have 8 to 1000 characters");
  });

  test("what process 0 answers is checked and escaped", async () => {
    const right = { ncclUniqueId: id, seed: String(2n ** 63n - 2n) };
    expect(decisionsOf(right, expected)).toEqual(right);
    const wrong = [
      { seed: "abc" },
      { seed: "-5" },
      { seed: "9".repeat(400) },
      { seed: String(2n ** 63n - 1n) },
      { seed: 7 },
      { seed: "" },
      { ncclUniqueId: "aWQ=" },
      { ncclUniqueId: `${id}AAAA` },
      { ncclUniqueId: `${id.slice(0, -4)}!!!!` },
      { ncclUniqueId: 7 },
    ];
    for (const change of wrong) expect(decisionsOf({ ...right, ...change }, expected)).toBeNull();
    for (const other of [null, 7, "x", [], {}]) expect(decisionsOf(other, expected)).toBeNull();

    const port = freePort();
    const server = Bun.listen({
      hostname: "127.0.0.1",
      port,
      socket: {
        data(socket) {
          const refused = `\u001b]0;owned\u0007${"x".repeat(5000)}`;
          socket.write(`${JSON.stringify({ refused })}\n`);
        },
      },
    });
    const message = await refusal(() => rendezvous(optionsOf(port, 1)), "rank-failed");
    server.stop(true);
    expect(message).toStartWith("\\u001b]0;owned\\u0007xxx");
    expect(message.length).toBeLessThan(1100);
  });

  test("a coordinator that does not know the secret is believed nothing", async () => {
    const port = freePort();
    const server = Bun.listen({
      hostname: "127.0.0.1",
      port,
      socket: {
        open(socket) {
          const challenge = { basedxl: protocolVersion, challenge: "c", asksSecret: true };
          socket.write(`${JSON.stringify(challenge)}\n`);
        },
        data(socket, bytes) {
          if (!String(bytes).includes("proof")) return;
          // What the client sent is no proof of the other side.
          const { proof } = JSON.parse(
            String(bytes)
              .split("\n")
              .find((l) => l.includes("proof"))!,
          );
          socket.write(`${JSON.stringify({ welcome: { ncclUniqueId: id, seed: "1" }, proof })}\n`);
        },
      },
    });
    const fooled = () => rendezvous({ ...optionsOf(port, 1), secret: "correct horse" });
    expect(await refusal(fooled, "rank-failed")).toContain("answered what no BasedXL");
    server.stop(true);
    const without = freePort();
    const zero = rendezvous(optionsOf(without, 0));
    const knowing = () => rendezvous({ ...optionsOf(without, 1), secret: "correct horse" });
    expect(await refusal(knowing, "rank-failed")).toContain("Process 0 knows no secret");
    const both = await Promise.all([zero, rendezvous(optionsOf(without, 1))]);
    await Promise.all(both.map(({ peers }) => peers.finish()));
  });

  test("where other machines reach the port a secret is made, and never sent", async () => {
    const port = freePort();
    // An address of no machine, as behind NAT: the coordinator listens on all of its own.
    const made = Promise.withResolvers<string>();
    const options = optionsOf(port, 0);
    const zero = rendezvous({
      ...options,
      process: { ...options.process, host: "192.0.2.1" },
      onSecret: made.resolve,
    });
    const secret = await made.promise;
    expect(secret).toMatch(/^[0-9a-f]{32}$/);
    const without = () => rendezvous(optionsOf(port, 1));
    expect(await refusal(without, "rank-failed")).toContain("set BASEDXL_SECRET to what it shows");
    const { port: tapped, heard, stop } = tap(port);
    const both = await Promise.all([zero, rendezvous({ ...optionsOf(tapped, 1), secret })]);
    await Promise.all(both.map(({ peers }) => peers.finish()));
    stop();
    expect(heard()).toContain("welcome");
    expect(heard()).not.toContain(secret);
  });

  test("what a process overheard lets it in nowhere", async () => {
    const secret = "correct horse";
    const [first, second] = [freePort(), freePort()];
    const { port: tapped, heard, stop } = tap(first);
    const one = { ...optionsOf(tapped, 1), secret };
    const both = await Promise.all([
      rendezvous({ ...optionsOf(first, 0), secret }),
      rendezvous(one),
    ]);
    await Promise.all(both.map(({ peers }) => peers.finish()));
    stop();
    const hello = heard()
      .split("\n")
      .find((line) => line.includes("worldSize"))!;
    const refusals: string[] = [];
    const onRefusal = (sentence: string) => refusals.push(sentence);
    const zero = rendezvous({ ...optionsOf(second, 0), secret, onRefusal });
    await Bun.sleep(20);
    await visit(second, `${hello}\n`);
    expect(refusals).toEqual(["A process that says it is RANK 1 has not the same BASEDXL_SECRET."]);
    const again = await Promise.all([zero, rendezvous({ ...optionsOf(second, 1), secret })]);
    await Promise.all(again.map(({ peers }) => peers.finish()));
  });

  test("floods and drips keep nobody out", async () => {
    const port = freePort();
    const first = rendezvous(optionsOf(port, 0, 3));
    await Bun.sleep(20);
    let isFlooding = true;
    const flood = async (words: string) => {
      while (isFlooding) {
        const socket = connect(port, "127.0.0.1");
        socket.on("error", () => {});
        socket.resume();
        for (const piece of words) socket.write(piece);
        await Bun.sleep(1);
      }
    };
    const floods = [
      flood("[".repeat(2000)),
      flood('{"heartbeat":1}\n'.repeat(100)),
      flood(""),
      flood('{"basedxl":3,"rank":1}\n'),
    ];
    const others = [1, 2].map((index) => rendezvous(optionsOf(port, index, 3)));
    const all = await Promise.all([first, ...others]);
    isFlooding = false;
    await Promise.all(floods);
    await Promise.all(all.map(({ peers }) => peers.finish()));
    expect(all.map(({ peers }) => peers.failure)).toEqual([null, null, null]);
  });

  test("a visitor that only shows that it is there is sent away", async () => {
    const port = freePort();
    const controller = new AbortController();
    const first = rendezvous({ ...optionsOf(port, 0), signal: controller.signal });
    await Bun.sleep(20);
    await visit(port, '{"heartbeat":1}\n'.repeat(20));
    controller.abort();
    await refusal(() => first, "cancelled");
  });

  test("a process whose place at the port was taken comes again", async () => {
    const port = freePort();
    let count = 0;
    const { port: tapped, stop } = tap(port, () => ++count > 3);
    const both = await Promise.all([
      rendezvous(optionsOf(port, 0)),
      rendezvous(optionsOf(tapped, 1)),
    ]);
    await Promise.all(both.map(({ peers }) => peers.finish()));
    stop();
    expect(count).toBe(4);
  });

  test("what process 0 decides is checked before it is sent, too", async () => {
    const port = freePort();
    const zero = { ...optionsOf(port, 0), decide: () => ({ ncclUniqueId: id, seed: "-1" }) };
    for (const each of [rendezvous(zero), rendezvous(optionsOf(port, 1))]) {
      expect(await refusal(() => each, "rank-failed")).toContain("no seed or ncclUniqueId for all");
    }
  });
});

/** Sends `words` and waits until it is sent away. */
async function visit(port: number, words: string): Promise<void> {
  const socket = connect(port, "127.0.0.1", () => socket.write(words));
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.on("close", resolve);
  socket.on("error", () => {});
  socket.resume();
  await promise;
}

/** A port that forwards to another and hears both sides; `admits` says whether to let one in. */
function tap(target: number, admits = () => true) {
  const texts: string[] = [];
  const server = createServer((socket) => {
    socket.on("error", () => {});
    if (!admits()) return void socket.destroy();
    const onward = connect(target, "127.0.0.1");
    onward.on("error", () => socket.destroy());
    for (const [from, to] of [
      [socket, onward],
      [onward, socket],
    ] as const) {
      from.on("data", (bytes) => texts.push(String(bytes)));
      from.pipe(to);
    }
  });
  server.listen(0, "127.0.0.1");
  const { port } = server.address() as AddressInfo;
  return { port, heard: () => texts.join(""), stop: () => server.close() };
}
