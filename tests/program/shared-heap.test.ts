/**
 * A service starts once more in place, so that its threads share one arena of malloc: the process,
 * its arguments, exit codes and what the user has set stay.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { listeningUrl } from "../../src/bench/support/serve-process.ts";

// The cores may be busy.
setDefaultTimeout(60_000);

const folder = mkdtempSync(join(tmpdir(), "basedxl-shared-heap-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const main = join(import.meta.dir, "../../src/main.ts");
const bun = [process.execPath, "--no-env-file", main];
const given = { ...process.env, MALLOC_ARENA_MAX: undefined };

describe.skipIf(process.platform !== "linux")("a service", () => {
  test("has one arena, and is the process that was started", async () => {
    const { pid, end } = await start(serveCommand());
    expect(startOf(pid, "cmdline")).toEqual(serveCommand());
    expect(startOf(pid, "environ")).toContain("MALLOC_ARENA_MAX=1");
    expect(arenaCount(pid)).toBe(0);
    expect(await end("SIGTERM")).toBe(143);
  });

  test("keeps a user's number of arenas, without a second start", async () => {
    const { pid, end } = await start(serveCommand(), { MALLOC_ARENA_MAX: "3" });
    const environment = startOf(pid, "environ");
    expect(environment).toContain("MALLOC_ARENA_MAX=3");
    expect(environment.filter((entry) => entry.startsWith("BASEDXL_STARTED_BY"))).toEqual([]);
    expect(await end("SIGINT")).toBe(130);
  });

  test("starts once more at most, where the variable does not reach the second start", async () => {
    const again = ["sh", "-c", 'BASEDXL_STARTED_BY=$$ exec "$@"', "sh", ...serveCommand()];
    const { pid, end } = await start(again);
    const environment = startOf(pid, "environ");
    expect(environment.filter((entry) => entry.startsWith("MALLOC_ARENA_MAX"))).toEqual([]);
    expect(await end("SIGTERM")).toBe(143);
  });

  test("refuses flags and ports as ever", async () => {
    expect(await ended(["serve", "--nope"])).toEqual([
      2,
      expect.stringContaining("no flag --nope"),
    ]);
    expect(await ended(["worker"])).toEqual([2, expect.stringContaining("needs --queue")]);
    expect(await ended(["serve", "--help"])).toEqual([0, ""]);
    using taken = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response() });
    const port = ["--host", "127.0.0.1", "--port", String(taken.port)];
    const [exitCode, text] = await ended(["serve", ...port, "--outputs", join(folder, "taken")]);
    expect([exitCode, text]).toEqual([1, expect.stringContaining("another program has the port")]);
  });
});

function serveCommand(): string[] {
  const flags = ["--port", "0", "--device", "cpu", "--log-format", "json"];
  return [...bun, "serve", ...flags, "--outputs", join(folder, "out puts")];
}

async function start(command: string[], env: Record<string, string> = {}) {
  const child = Bun.spawn(command, {
    ...{ stdout: "ignore", stderr: "pipe", env: { ...given, ...env } },
  });
  await listeningUrl(child.stderr);
  const end = async (signal: NodeJS.Signals) => {
    child.kill(signal);
    return await child.exited;
  };
  return { pid: child.pid, end };
}

/** The exit code, and what is on stderr. */
async function ended(args: string[]): Promise<[number, string]> {
  const child = Bun.spawn([...bun, ...args], { stdout: "ignore", stderr: "pipe", env: given });
  const text = await child.stderr.text();
  return [await child.exited, text];
}

function startOf(pid: number, file: "cmdline" | "environ"): string[] {
  return readFileSync(`/proc/${pid}/${file}`, "utf8").split("\0").slice(0, -1);
}

/** Arenas beside the first: a part of 64 MiB that is used, and the rest, which is reserved. */
function arenaCount(pid: number): number {
  const regions = readFileSync(`/proc/${pid}/maps`, "utf8")
    .split("\n")
    .map((line) => /^(\w+)-(\w+) (\S+) 00000000 00:00 0 *$/.exec(line))
    .map(
      (found) => found && ([parseInt(found[1]!, 16), parseInt(found[2]!, 16), found[3]] as const),
    );
  return regions.filter((region, i) => {
    const rest = regions[i + 1];
    if (!region || !rest || region[2] !== "rw-p" || rest[2] !== "---p") return false;
    return region[0] % 2 ** 26 === 0 && rest[1] - region[0] === 2 ** 26;
  }).length;
}
