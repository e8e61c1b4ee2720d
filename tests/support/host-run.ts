/**
 * A process of an image on a host of its own, without the image: joins the rendezvous, then waits
 * for its standard input to end, and reports what it ended with. Arguments: index, address, port,
 * and the longest silence in ms.
 */

import { rendezvous } from "../../src/distributed/rendezvous.ts";
import { runTogether } from "../../src/distributed.ts";
import { optionsOf } from "./rendezvous.ts";

const [index, host, port, silenceMs] = process.argv.slice(2) as [string, string, string, string];
const options = optionsOf(Number(port), Number(index));
const { peers } = await rendezvous({
  ...options,
  process: { ...options.process, host },
  secret: "correct horse",
  limitMs: 30_000,
  connection: { heartbeatMs: 100, silenceMs: Number(silenceMs) },
});
process.stdout.write("met\n");
const never = new AbortController().signal;
try {
  await runTogether(peers, never, (signal) => {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => reject(new Error("stopped")));
    void Bun.stdin.text().then(() => resolve());
    return promise;
  });
  process.stdout.write("done\n");
} catch (error) {
  process.stdout.write(`${(error as Error).message}\n`);
}
