/**
 * `basedxl pull` and `sample --model ID` as users run them, against a hub on this machine: killed,
 * stopped, two at once, and again without a network.
 */
import { afterAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { random } from "../support/hub-bytes.ts";
import { sha256, startHubServer } from "../support/hub-server.ts";
import { noDiskReason, onDisk } from "../support/mount.ts";

setDefaultTimeout(120_000);

const root = join(import.meta.dir, "../..");
const mini = join(root, "src/assets/mini-sdxl");
const server = await startHubServer();
const top = mkdtempSync(join(tmpdir(), "basedxl-pull-"));
afterAll(() => {
  server.stop();
  rmSync(top, { recursive: true, force: true });
});

const commit = "0123456789abcdef0123456789abcdef01234567";
const weights = random(20_000_000, 1);
const token = "hf_0123456789";
let home = "";

beforeEach(() => {
  home = mkdtempSync(join(top, "home-"));
  server.fault = () => undefined;
  server.requests.length = 0;
  server.sentBytes = 0;
  server.repositories.set("org/single", { commit, files: { "a.safetensors": weights } });
});

/** What decides the build stays, or the child would build another library. */
const { BASEDXL_NVCC } = process.env;
const env = (more: Record<string, string> = {}) => ({
  PATH: process.env.PATH ?? "",
  ...(BASEDXL_NVCC !== undefined && { BASEDXL_NVCC }),
  HOME: home,
  HF_ENDPOINT: server.endpoint,
  HF_TOKEN: token,
  ...more,
});

function start(args: string[], variables = env()) {
  const command = [process.execPath, join(root, "src", "main.ts"), ...args];
  const stdio = { stdin: "ignore", stdout: "pipe", stderr: "pipe" } as const;
  return Bun.spawn(command, { cwd: home, env: variables, ...stdio });
}

async function ended(child: ReturnType<typeof start>) {
  const [stdout, stderr] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  await child.exited;
  return { stdout, stderr, exitCode: child.exitCode, signalCode: child.signalCode };
}

const run = (...args: string[]) => ended(start(args));
const repository = () => join(home, ".cache/huggingface/hub/models--org--single");
const partial = () => join(repository(), "blobs", `${sha256(weights)}.incomplete`);

/** Lets large files come slowly: a piece, then nothing more. */
function stallAfter(bytes: number): void {
  server.fault = ({ isCdn }) => (isCdn ? { stallAfter: bytes } : undefined);
}

async function partialHas(bytes: number): Promise<void> {
  while (!existsSync(partial()) || statSync(partial()).size < bytes) await Bun.sleep(20);
}

describe("pull", () => {
  test("prints where the model is, and how it went", async () => {
    const { stdout, stderr, exitCode } = await run("pull", "org/single");
    const path = join(repository(), "snapshots", commit, "a.safetensors");
    expect({ stdout, exitCode }).toEqual({ stdout: `${path}\n`, exitCode: 0 });
    expect(readFileSync(path).equals(weights)).toBe(true);
    expect(stderr).toMatch(/^Fetching org\/single to .*: 1 file, 20\.0 MB\.\nFetched /);
    expect(stderr).toMatch(/Fetched org\/single: 20\.0 MB\.\n$/);
    expect(stderr).not.toContain(token);
    const again = await run("pull", "org/single", "--json");
    const { bytes, fetched_bytes, asked_hub, ...report } = JSON.parse(again.stdout);
    expect(report).toEqual({ path, id: "org/single", revision: "main", commit, files: 1 });
    expect([bytes, fetched_bytes, asked_hub]).toEqual([weights.length, 0, true]);
    expect(await run("pull", "org/single", "--quiet")).toMatchObject({ stderr: "" });
  });

  test("killed in the middle: another goes on from there", async () => {
    stallAfter(8_000_000);
    const child = start(["pull", "org/single"]);
    await partialHas(7_000_000);
    child.kill("SIGKILL");
    expect((await ended(child)).signalCode).toBe("SIGKILL");
    expect(readdirSync(repository()).sort()).toEqual(["blobs"]);
    const there = statSync(partial()).size;
    server.fault = () => undefined;
    server.sentBytes = 0;
    const { exitCode, stdout, stderr } = await run("pull", "org/single");
    expect(exitCode).toBe(0);
    expect(stderr).toMatch(/20\.0 MB, of which \d\.\d\d MB are there\./);
    expect(server.sentBytes).toBe(weights.length - there);
    expect(sha256(readFileSync(stdout.trim()))).toBe(sha256(weights));
    expect(existsSync(partial())).toBe(false);
  });

  test("stopped by Ctrl-C: exit code 130, and the next goes on", async () => {
    stallAfter(8_000_000);
    const child = start(["pull", "org/single", "--json"]);
    await partialHas(7_000_000);
    child.kill("SIGINT");
    const { exitCode, stdout, stderr } = await ended(child);
    expect(exitCode).toBe(130);
    expect(JSON.parse(stdout).error).toMatchObject({ code: "cancelled" });
    expect(stderr).toMatch(
      /Stopping \.\.\.\nStopped while a model was being fetched; run it again/,
    );
    const there = statSync(partial()).size;
    server.fault = () => undefined;
    server.sentBytes = 0;
    expect((await run("pull", "org/single")).exitCode).toBe(0);
    expect(server.sentBytes).toBe(weights.length - there);
  });

  test("three at once: one fetches, all have it", async () => {
    const all = await Promise.all([1, 2, 3].map(() => run("pull", "org/single", "--quiet")));
    for (const { exitCode, stdout, stderr } of all) {
      expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
      expect(sha256(readFileSync(stdout.trim()))).toBe(sha256(weights));
    }
    expect(server.sentBytes).toBe(weights.length);
  });

  const noDisk = noDiskReason(join(top, "probe"));
  if (noDisk !== null) console.warn(`Not tested here: a full disk: ${noDisk}`);
  test.skipIf(noDisk !== null)("does not begin what the disk cannot hold", async () => {
    const folder = join(home, "disk");
    const command = [process.execPath, join(root, "src", "main.ts"), "pull", "org/single"];
    const disk = onDisk({ folder, options: "size=8m" }, 'shift && exec "$@"', command);
    const stdio = { stdin: "ignore", stdout: "pipe", stderr: "pipe" } as const;
    const child = Bun.spawn(disk, { cwd: home, env: env({ HF_HUB_CACHE: folder }), ...stdio });
    const { exitCode, stderr } = await ended(child);
    expect(stderr).toMatch(
      /error: org\/single needs 20\.0 MB more in .*disk, which has 8\.\d+ MB free/,
    );
    expect(exitCode).toBe(1);
    expect(server.sentBytes).toBe(0);
  });

  test("refuses what is no id, and says what helps where the hub refuses", async () => {
    expect((await run("pull")).stderr).toMatch(/^error: Name a model of the hub: write org\/name/);
    const { stderr, exitCode } = await run("pull", "sdxl");
    expect(stderr).toMatch(/^error: "sdxl" is no model of the hub: write org\/name/);
    expect(exitCode).toBe(2);
    server.fault = ({ path }) =>
      path.includes("/resolve/")
        ? { status: 403, headers: { "x-error-code": "GatedRepo" } }
        : undefined;
    const gated = await run("pull", "org/single");
    expect(gated.stderr).toMatch(
      /error: org\/single is gated: accept its terms at .*HF_TOKEN is ref/,
    );
    expect(gated.exitCode).toBe(1);
    expect(gated.stderr).not.toContain(token);
  });
});

test("sample --model ID fetches the model, and needs no network again", async () => {
  const files: Record<string, Uint8Array> = { "README.md": random(10, 1) };
  for (const entry of readdirSync(mini, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    files[path.slice(mini.length + 1)] = readFileSync(path);
  }
  const other = await startHubServer();
  other.repositories.set("org/mini", { commit, files });
  const variables = env({ HF_ENDPOINT: other.endpoint });
  const sample = (model: string[], out: string) => {
    // Parameters in the file name the model as it was given.
    const plain = ["--steps", "2", "--seed", "7", "--no-metadata"];
    const flags = [...plain, "--device", "cpu", "--out", out];
    return ended(start(["sample", ...model, ...flags], variables));
  };
  try {
    const first = await sample(["--model", "org/mini"], "one.png");
    expect(first.exitCode).toBe(0);
    expect(first.stderr).toMatch(/Fetching org\/mini to .*hub: \d+ files, /);
  } finally {
    other.stop();
  }
  const again = await sample(["--model", "org/mini@main", "--quiet"], "two.png");
  expect(again).toMatchObject({ exitCode: 0, stderr: "" });
  await sample([], "bundled.png");
  const [one, two, bundled] = ["one", "two", "bundled"].map((name) =>
    readFileSync(join(home, `${name}.png`)),
  );
  expect(one?.equals(two!)).toBe(true);
  expect(one?.equals(bundled!)).toBe(true);
  const gone = await sample(["--model", "org/other"], "none.png");
  expect(gone.stderr).toMatch(/--model org\/other is not on this machine\. 127\.0\.0\.1.*reached/);
  expect(gone.exitCode).toBe(1);
});
