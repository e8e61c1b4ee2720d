/**
 * Several processes around an image: environment variables, rendezvous over TCP, and each process's
 * error when another differs, is missing, fails or disconnects. Strangers at the port are in
 * rendezvous-strangers.test.ts, images in tests/cuda/processes.test.ts.
 */
import { describe, expect, test } from "bun:test";
import { connect } from "node:net";
import { networkInterfaces } from "node:os";
import { listenAddress } from "../../src/distributed/rendezvous/listen-address.ts";
import { protocolVersion } from "../../src/distributed/rendezvous/protocol.ts";
import { rendezvous } from "../../src/distributed/rendezvous.ts";
import {
  describeProcess,
  processEnvironment,
  processGroupOf,
  runTogether,
} from "../../src/distributed.ts";
import { BasedXLError } from "../../src/errors.ts";
import { refusal } from "../support/refusal.ts";
import { expected, freePort, id, optionsOf } from "../support/rendezvous.ts";

const env = { RANK: "1", WORLD_SIZE: "3", MASTER_ADDR: "10.0.0.7", MASTER_PORT: "29500" };

describe("the environment", () => {
  test("nothing set, or a world of one, is one process", () => {
    expect(processEnvironment({})).toBeNull();
    expect(processEnvironment({ RANK: "", WORLD_SIZE: "" })).toBeNull();
    expect(processEnvironment({ ...env, RANK: "0", WORLD_SIZE: "1" })).toBeNull();
    expect(processEnvironment({ RANK: "0", WORLD_SIZE: "1" })).toBeNull();
    expect(processEnvironment({ WORLD_SIZE: "1", MASTER_PORT: "29500" })).toBeNull();
    expect(processEnvironment({ RANK: "0", WORLD_SIZE: "01" })).toBeNull();
  });

  test("all four are read, and LOCAL_RANK where there is one", () => {
    const expected = { index: 1, count: 3, localIndex: 0, host: "10.0.0.7", port: 29500 };
    expect(processEnvironment(env)).toEqual(expected);
    expect(processEnvironment({ ...env, LOCAL_RANK: "2" })).toEqual({ ...expected, localIndex: 2 });
    // torchrun's agent has the port itself.
    const torchrun = { ...env, TORCHELASTIC_USE_AGENT_STORE: "True" };
    expect(processEnvironment(torchrun)).toEqual({ ...expected, port: 29501 });
  });

  const nonsense = [
    [{ RANK: undefined }, "RANK is not"],
    [{ RANK: "3" }, "RANK must be a whole number from 0 to 2"],
    [{ RANK: "-1" }, "RANK must be"],
    [{ WORLD_SIZE: "17" }, "WORLD_SIZE must be a whole number from 1 to 16"],
    [{ WORLD_SIZE: "two" }, 'not "two"'],
    [{ MASTER_PORT: "65536" }, "MASTER_PORT must be a whole number from 1 to 65535"],
    [{ MASTER_ADDR: "http://a b" }, "MASTER_ADDR must be the name or address of process 0"],
    [{ LOCAL_RANK: "x" }, "LOCAL_RANK must be"],
    [{ WORLD_SIZE: "1" }, 'RANK must be 0, not "1"'],
    [{ RANK: "\u001b[2J" }, 'not "\\u001b[2J"'],
  ] as const;
  test.each(nonsense)("%p is refused: %s", async (change, sentence) => {
    const message = await refusal(() => processEnvironment({ ...env, ...change }), "bad-option");
    expect(message).toContain(sentence);
  });

  const wishes = {
    device: "cuda",
    rankCount: 2,
    shareGpu: false,
    transport: "auto",
    vaeTiling: false,
  } as const;
  const impossible = [
    [{ rankCount: 6 }, "18 ranks together, and 16 is the most"],
    [{ device: "cpu" }, "--device cpu"],
    [{ transport: "peer" }, "NCCL"],
    [{ shareGpu: true }, "--share-gpu"],
    [{ vaeTiling: true }, "--vae-tiling"],
  ] as const;
  test.each(impossible)("several processes cannot %p", async (change, sentence) => {
    const message = await refusal(
      () => processGroupOf(processEnvironment(env)!, { ...wishes, ...change }),
      "bad-option",
    );
    expect(message).toContain(sentence);
  });

  test("ranks are dealt in the order of the processes", () => {
    expect(processGroupOf(processEnvironment(env)!, wishes)).toMatchObject({
      rankCount: 6,
      localRankCount: 2,
      index: 1,
    });
    expect(describeProcess({ localRankCount: 2 }, 1)).toBe("Process 1 (ranks 2 and 3)");
    expect(describeProcess({ localRankCount: 4 }, 1)).toBe("Process 1 (ranks 4 to 7)");
  });
});

describe("a rendezvous", () => {
  test("the others get what process 0 decides, in whatever order they come", async () => {
    const port = freePort();
    const early = rendezvous(optionsOf(port, 2, 3));
    await Bun.sleep(50);
    const all = await Promise.all([
      rendezvous(optionsOf(port, 0, 3)),
      rendezvous(optionsOf(port, 1, 3)),
      early,
    ]);
    for (const { ncclUniqueId, seed } of all) expect([ncclUniqueId, seed]).toEqual([id, "7"]);
    await Promise.all(all.map(({ peers }) => peers.finish()));
    expect(all.map(({ peers }) => peers.failure)).toEqual([null, null, null]);
  });

  test("what differs is named on both sides", async () => {
    const port = freePort();
    const other = { ...optionsOf(port, 1), settings: { "--seed": "8", "--steps": "4" } };
    const both = [rendezvous(optionsOf(port, 0)), rendezvous(other)];
    for (const each of both) {
      expect(await refusal(() => each, "rank-failed")).toBe(
        "Process 1 and process 0 differ in --seed (8 and 7): start all with the same flags, model \
and version.",
      );
    }
  });

  test("a process that does not belong is sent away alone, and the others go on", async () => {
    const port = freePort();
    const refusals: string[] = [];
    const zero = rendezvous({ ...optionsOf(port, 0, 3), onRefusal: (each) => refusals.push(each) });
    const one = rendezvous(optionsOf(port, 1, 3));
    // Longer than a client waits between two attempts.
    await Bun.sleep(600);
    const other = { ...optionsOf(port, 2, 3), settings: { "--seed": "7", "--new-flag": "1" } };
    const misfits = [
      [optionsOf(port, 1, 3), "Two processes say that they are RANK 1"],
      [optionsOf(port, 2, 4), "WORLD_SIZE must be the same"],
      [other, "different version of BasedXL"],
    ] as const;
    for (const [options, sentence] of misfits) {
      const message = await refusal(() => rendezvous(options), "rank-failed");
      expect(message).toContain(sentence);
      expect(refusals.at(-1)).toBe(message);
    }
    const all = await Promise.all([zero, one, rendezvous(optionsOf(port, 2, 3))]);
    await Promise.all(all.map(({ peers }) => peers.finish()));
    expect(all.map(({ peers }) => peers.failure)).toEqual([null, null, null]);
  });

  test("who does not come is named, and process 0 that does not answer", async () => {
    const port = freePort();
    const waiting = () => rendezvous({ ...optionsOf(port, 0, 3), limitMs: 100 });
    expect(await refusal(waiting, "rank-failed")).toContain("Process 1 (rank 1), Process 2");
    const calling = () => rendezvous({ ...optionsOf(port, 1), limitMs: 100 });
    expect(await refusal(calling, "rank-failed")).toContain(
      `Process 0 did not answer at 127.0.0.1:${port} within 0.1 s (ECONNREFUSED)`,
    );
  });

  test("a port that is taken is an error at once", async () => {
    const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const message = await refusal(() => rendezvous(optionsOf(server.port, 0)), "io");
    server.stop(true);
    expect(message).toContain(
      `Port ${server.port} (of MASTER_PORT) cannot be opened here (it is taken`,
    );
  });

  test("the coordinator listens on the address of MASTER_ADDR alone", async () => {
    expect(await listenAddress("localhost")).toBe("127.0.0.1");
    for (const own of ["127.0.0.1", "127.0.0.2", "::1"]) expect(await listenAddress(own)).toBe(own);
    for (const list of Object.values(networkInterfaces())) {
      for (const { address } of list ?? []) expect(await listenAddress(address)).toBe(address);
    }
    // No address of this machine: TEST-NET-1 and the documentation prefix.
    expect(await listenAddress("192.0.2.1")).toBe("0.0.0.0");
    expect(await listenAddress("2001:db8::1")).toBe("::");
    expect(await listenAddress("no.such.name.invalid")).toBe("0.0.0.0");
  });

  test("a stop by the user ends the wait", async () => {
    const controller = new AbortController();
    const waiting = rendezvous({ ...optionsOf(freePort(), 0), signal: controller.signal });
    controller.abort();
    await refusal(() => waiting, "cancelled");
  });
});

describe("while generating", () => {
  /** Three processes that have met. */
  async function trio() {
    const port = freePort();
    const met = await Promise.all([0, 1, 2].map((index) => rendezvous(optionsOf(port, index, 3))));
    return met.map(({ peers }) => peers);
  }

  /** The error message that a waiting process receives. */
  function waiting(peers: Awaited<ReturnType<typeof trio>>[number]): Promise<string> {
    const never = new AbortController().signal;
    return refusal(
      () =>
        runTogether(peers, never, (signal) => {
          const { promise, reject } = Promise.withResolvers<void>();
          const stop = () => reject(new BasedXLError("cancelled", "Stopped."));
          signal.addEventListener("abort", stop);
          return promise;
        }),
      "rank-failed",
    );
  }

  test("who fails is named to all, with its reason", async () => {
    const [zero, one, two] = await trio();
    const others = [waiting(zero!), waiting(two!)];
    await one!.fail("GPU 0 failed at taking memory.");
    for (const message of await Promise.all(others)) {
      expect(message).toBe("Process 1 (rank 1) failed: GPU 0 failed at taking memory.");
    }
  });

  test("process 0's failure is reported to all", async () => {
    const [zero, one, two] = await trio();
    const others = [waiting(one!), waiting(two!)];
    await zero!.fail("The disk is full.");
    for (const message of await Promise.all(others)) {
      expect(message).toBe("Process 0 (rank 0) failed: The disk is full.");
    }
  });

  test("who goes away without a word is named", async () => {
    const port = freePort();
    const module = `${import.meta.dir}/../../src/distributed/rendezvous.ts`;
    const script = `
      import { rendezvous } from ${JSON.stringify(module)};
      const connection = { heartbeatMs: 20, silenceMs: 400 };
      const process = { index: 1, count: 2, localIndex: 0, host: "127.0.0.1", port: ${port} };
      const settings = ${JSON.stringify(optionsOf(port, 1).settings)};
      const expected = ${JSON.stringify(expected)};
      await rendezvous({ process, settings, connection, expected, decide() {}, describe: String });
      globalThis.process.stdout.write("met");`;
    const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe" });
    const { peers } = await rendezvous(optionsOf(port, 0));
    const reported = waiting(peers);
    child.kill("SIGKILL");
    const message = await reported;
    expect(message).toStartWith("Process 1 (rank 1) went away before the image was done (");
    expect(message).toEndWith("). No image was written.");
  });

  test("who hangs is named too", async () => {
    const port = freePort();
    const first = rendezvous(optionsOf(port, 0));
    await Bun.sleep(20);
    const { settings } = optionsOf(port, 1);
    const hello = { basedxl: protocolVersion, rank: 1, worldSize: 2, settings, nonce: "n" };
    const socket = connect(port, "127.0.0.1", () => socket.write(`${JSON.stringify(hello)}\n`));
    const { peers } = await first;
    expect(await waiting(peers)).toContain("(it sent nothing for 0.4 s)");
    socket.destroy();
  });
});
