/**
 * A rendezvous of processes that are all in this one, with short limits.
 */
import type { RendezvousOptions } from "../../src/distributed/rendezvous.ts";
import { describeProcess } from "../../src/distributed.ts";

/** Bytes of an ncclUniqueId in base64. */
export const id = Buffer.alloc(128, 7).toString("base64");
export const expected = { imageCount: 2, idBytes: 128 };

/** A port that is free at this moment. */
export function freePort(): number {
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = server;
  server.stop(true);
  return port;
}

/** Options of process `index` out of `count`, all quick. */
export function optionsOf(port: number, index: number, count = 2): RendezvousOptions {
  return {
    process: { index, count, localIndex: 0, host: "127.0.0.1", port },
    settings: { "--seed": "7", "--steps": "4" },
    decide: () => ({ ncclUniqueId: id, seed: "7" }),
    expected,
    describe: (other) => describeProcess({ localRankCount: 1 }, other),
    limitMs: 10_000,
    connection: { heartbeatMs: 20, silenceMs: 400 },
  };
}
