/**
 * Several machines before and around a image: what the environment may say, how machines meet
 * over TCP, and what each hears when another differs, does not come, fails or goes away. The
 * images that they draw together are in kernels/machines.test.ts.
 */
import { describe, expect, test } from "bun:test";
import { connect } from "node:net";
import { machineEnvironment } from "../../src/distributed/environment.ts";
import { type MeetingOptions, meet, protocolVersion } from "../../src/distributed/meeting.ts";
import { describeMachine, drawTogether, findMachines } from "../../src/distributed.ts";
import { BasedXLError } from "../../src/errors.ts";
import { refusal } from "../support/refusal.ts";

const env = { RANK: "1", WORLD_SIZE: "3", MASTER_ADDR: "10.0.0.7", MASTER_PORT: "29500" };

describe("the environment", () => {
  test("nothing set, or a world of one, is one machine", () => {
    expect(machineEnvironment({})).toBeNull();
    expect(machineEnvironment({ RANK: "", WORLD_SIZE: "" })).toBeNull();
    expect(machineEnvironment({ ...env, RANK: "0", WORLD_SIZE: "1" })).toBeNull();
  });

  test("all four are read, and LOCAL_RANK where there is one", () => {
    const expected = { index: 1, count: 3, localIndex: 0, host: "10.0.0.7", port: 29500 };
    expect(machineEnvironment(env)).toEqual(expected);
    expect(machineEnvironment({ ...env, LOCAL_RANK: "2" })).toEqual({ ...expected, localIndex: 2 });
    // torchrun's agent has the port itself.
    const torchrun = { ...env, TORCHELASTIC_USE_AGENT_STORE: "True" };
    expect(machineEnvironment(torchrun)).toEqual({ ...expected, port: 29501 });
  });

  const nonsense = [
    [{ RANK: undefined }, "RANK is not"],
    [{ RANK: "3" }, "RANK must be a whole number from 0 to 2"],
    [{ RANK: "-1" }, "RANK must be"],
    [{ WORLD_SIZE: "17" }, "WORLD_SIZE must be a whole number from 1 to 16"],
    [{ WORLD_SIZE: "two" }, 'not "two"'],
    [{ MASTER_PORT: "65536" }, "MASTER_PORT must be a whole number from 1 to 65535"],
    [{ MASTER_ADDR: "http://a b" }, "MASTER_ADDR must be the name or address of machine 0"],
    [{ LOCAL_RANK: "x" }, "LOCAL_RANK must be"],
  ] as const;
  test.each(nonsense)("%p is refused: %s", async (change, sentence) => {
    const message = await refusal(() => machineEnvironment({ ...env, ...change }), "bad-option");
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
    [{ rankCount: 6 }, "18 ranks, and 16 is the most"],
    [{ device: "cpu" }, "--device cpu"],
    [{ transport: "peer" }, "NCCL"],
    [{ shareGpu: true }, "--share-gpu"],
    [{ vaeTiling: true }, "--vae-tiling"],
  ] as const;
  test.each(impossible)("several machines cannot %p", async (change, sentence) => {
    const message = await refusal(() => findMachines({ ...wishes, ...change }, env), "bad-option");
    expect(message).toContain(sentence);
  });

  test("ranks are dealt in the order of the machines", () => {
    expect(findMachines(wishes, env)).toMatchObject({ rankCount: 6, ranksHere: 2, index: 1 });
    expect(describeMachine({ ranksHere: 2 }, 1)).toBe("Machine 1 (ranks 2 and 3)");
    expect(describeMachine({ ranksHere: 4 }, 1)).toBe("Machine 1 (ranks 4 to 7)");
  });
});

/** A port that nobody uses at this moment. */
function freePort(): number {
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = server;
  server.stop(true);
  return port;
}

/** Options of machine `index` out of `count`, all quick. */
function seat(port: number, index: number, count = 2): MeetingOptions {
  return {
    machine: { index, count, localIndex: 0, host: "127.0.0.1", port },
    settings: { "--seed": "7", "--steps": "4" },
    decide: () => ({ meetingId: "aWQ=", seed: "7" }),
    describe: (other) => describeMachine({ ranksHere: 1 }, other),
    limitMs: 10_000,
    wire: { beatMs: 20, silenceMs: 400 },
  };
}

describe("a meeting", () => {
  test("the others get what machine 0 decides, in whatever order they come", async () => {
    const port = freePort();
    const early = meet(seat(port, 2, 3));
    await Bun.sleep(50);
    const all = await Promise.all([meet(seat(port, 0, 3)), meet(seat(port, 1, 3)), early]);
    for (const { meetingId, seed } of all) expect([meetingId, seed]).toEqual(["aWQ=", "7"]);
    await Promise.all(all.map(({ link }) => link.finish()));
    expect(all.map(({ link }) => link.failure)).toEqual([null, null, null]);
  });

  test("what differs is named on both sides", async () => {
    const port = freePort();
    const other = { ...seat(port, 1), settings: { "--seed": "8", "--steps": "4" } };
    const both = [meet(seat(port, 0)), meet(other)];
    for (const each of both) {
      expect(await refusal(() => each, "rank-failed")).toBe(
        "Machine 1 and machine 0 differ in --seed (8 and 7): start all with the same flags, model \
and version.",
      );
    }
  });

  test("two of one number, and different worlds, are refused on all sides", async () => {
    const port = freePort();
    const three = [meet(seat(port, 0, 3)), meet(seat(port, 1, 3)), meet(seat(port, 1, 3))];
    for (const each of three) {
      expect(await refusal(() => each, "rank-failed")).toContain("say that they are RANK 1");
    }
    const two = [meet(seat(port, 0, 2)), meet(seat(port, 1, 3))];
    for (const each of two) {
      expect(await refusal(() => each, "rank-failed")).toContain("WORLD_SIZE must be the same");
    }
  });

  test("who does not come is named, and machine 0 that does not answer", async () => {
    const port = freePort();
    const waiting = () => meet({ ...seat(port, 0, 3), limitMs: 100 });
    expect(await refusal(waiting, "rank-failed")).toContain("Machine 1 (rank 1), Machine 2");
    const calling = () => meet({ ...seat(port, 1), limitMs: 100 });
    expect(await refusal(calling, "rank-failed")).toContain(
      `Machine 0 did not answer at 127.0.0.1:${port} within 0.1 s (ECONNREFUSED)`,
    );
  });

  test("a port that is taken is an error at once", async () => {
    const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const message = await refusal(() => meet(seat(server.port, 0)), "io");
    server.stop(true);
    expect(message).toContain(
      `Port ${server.port} (of MASTER_PORT) cannot be opened here (it is taken`,
    );
  });

  test("strangers are sent away, and the meeting goes on", async () => {
    const port = freePort();
    const first = meet(seat(port, 0));
    await Bun.sleep(20);
    for (const words of [
      "GET / HTTP/1.1\r\n\r\n",
      '{"rank":1}\n',
      "[1]\n",
      '{"basedxl":1,"rank":-1}\n',
    ]) {
      const socket = connect(port, "127.0.0.1", () => socket.write(words));
      const { promise, resolve } = Promise.withResolvers<void>();
      socket.on("close", resolve);
      socket.on("error", () => {});
      socket.resume();
      await promise;
    }
    const [{ link }, other] = await Promise.all([first, meet(seat(port, 1))]);
    await Promise.all([link.finish(), other.link.finish()]);
    expect(link.failure).toBeNull();
  });

  test("a stop by the user ends the wait", async () => {
    const controller = new AbortController();
    const waiting = meet({ ...seat(freePort(), 0), signal: controller.signal });
    controller.abort();
    await refusal(() => waiting, "cancelled");
  });
});

describe("while drawing", () => {
  /** Three machines that have met. */
  async function trio() {
    const port = freePort();
    const met = await Promise.all([0, 1, 2].map((index) => meet(seat(port, index, 3))));
    return met.map(({ link }) => link);
  }

  /** What a machine that only waits for the end is told. */
  function waiting(link: Awaited<ReturnType<typeof trio>>[number]): Promise<string> {
    const never = new AbortController().signal;
    return refusal(
      () =>
        drawTogether(link, never, (signal) => {
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
      expect(message).toBe("Machine 1 (rank 1) failed: GPU 0 failed at taking memory.");
    }
  });

  test("machine 0's failure is told to all", async () => {
    const [zero, one, two] = await trio();
    const others = [waiting(one!), waiting(two!)];
    await zero!.fail("The disk is full.");
    for (const message of await Promise.all(others)) {
      expect(message).toBe("Machine 0 (rank 0) failed: The disk is full.");
    }
  });

  test("who goes away without a word is named", async () => {
    const port = freePort();
    const script = `
      import { meet } from ${JSON.stringify(`${import.meta.dir}/../../src/distributed/meeting.ts`)};
      const wire = { beatMs: 20, silenceMs: 400 };
      const machine = { index: 1, count: 2, localIndex: 0, host: "127.0.0.1", port: ${port} };
      const settings = ${JSON.stringify(seat(port, 1).settings)};
      await meet({ machine, settings, wire, decide: () => null, describe: String });
      process.stdout.write("met");`;
    const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe" });
    const { link } = await meet(seat(port, 0));
    const told = waiting(link);
    child.kill("SIGKILL");
    const message = await told;
    expect(message).toStartWith("Machine 1 (rank 1) went away before the image was done (");
    expect(message).toEndWith("). No image was written.");
  });

  test("who hangs is named too", async () => {
    const port = freePort();
    const meeting = meet(seat(port, 0));
    const { settings } = seat(port, 1);
    const hello = { basedxl: protocolVersion, rank: 1, worldSize: 2, settings };
    const socket = connect(port, "127.0.0.1", () => socket.write(`${JSON.stringify(hello)}\n`));
    const { link } = await meeting;
    expect(await waiting(link)).toContain("(it said nothing for 0.4 s)");
    socket.destroy();
  });
});
