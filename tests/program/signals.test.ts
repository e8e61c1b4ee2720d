/**
 * Signals to a child process that does not stop: one, two, and a late one.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";

const module = join(import.meta.dir, "../../src/terminal/signals.ts");
const script = `
  import { watchStopSignals } from ${JSON.stringify(module)};
  const watch = watchStopSignals((signal) => console.log("stop", signal, watch.stoppedBy()));
  watch.signal.addEventListener("abort", () => console.log("aborted"));
  console.log("ready");
  process.exitCode = 7;
  setTimeout(() => watch.release(), 2000);
`;

/** Starts the script, sends each signal after its delay (ms), and returns how it ended. */
async function run(signals: readonly (readonly [delayMs: number, signal: NodeJS.Signals])[]) {
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "inherit" });
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of child.stdout) {
    const before = text;
    text += decoder.decode(chunk);
    if (before.includes("ready") || !text.includes("ready")) continue;
    for (const [delayMs, signal] of signals) {
      await Bun.sleep(delayMs);
      child.kill(signal);
    }
  }
  await child.exited;
  const lines = text.trim().split("\n").slice(1);
  return { lines, exitCode: child.exitCode, signalCode: child.signalCode };
}

test("the first asks to stop; one within a second is the same", async () => {
  const { lines, exitCode } = await run([
    [0, "SIGINT"],
    [100, "SIGINT"],
  ]);
  expect(lines).toEqual(["stop SIGINT SIGINT", "aborted"]);
  expect(exitCode).toBe(7);
});

test("a later one ends the process at once", async () => {
  const { lines, signalCode } = await run([
    [0, "SIGINT"],
    [100, "SIGINT"],
    [1200, "SIGINT"],
  ]);
  expect(lines).toEqual(["stop SIGINT SIGINT", "aborted"]);
  expect(signalCode).toBe("SIGINT");
});

test("SIGTERM asks to stop as well", async () => {
  const { lines } = await run([[0, "SIGTERM"]]);
  expect(lines).toEqual(["stop SIGTERM SIGTERM", "aborted"]);
});
