/**
 * Real full disks, limits of files, kill -9 while files are written, clocks, for what writes files
 * and keeps jobs. The table of faults of whole programs is tests/faults.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { HashCache } from "../../src/library/hashes.ts";
import { JobStore } from "../../src/serve/jobs/store.ts";
import { noDiskReason, onDisk } from "../support/mount.ts";
import { sampled, seedName } from "../support/seed.ts";

// The cores may be busy.
setDefaultTimeout(60_000);

const folder = mkdtempSync(join(tmpdir(), "basedxl-faults-"));
afterAll(() => rmSync(folder, { recursive: true }));
const script = Bun.fileURLToPath(new URL("../support/fault-run.ts", import.meta.url));
const noDisk = noDiskReason(join(folder, "disk"));

/** Runs `fault-run.ts` under a shell's command. */
function under(before: string, ...words: string[]) {
  const command = ["sh", "-c", `${before}; exec "$0" "$@"`, process.execPath, script, ...words];
  const { stdout, stderr, exitCode } = Bun.spawnSync(command);
  return { text: String(stdout), errors: String(stderr), exitCode };
}

/** Every file is one that was written whole. */
function checkWhole(files: string): number {
  const names = readdirSync(files).filter((name) => name.endsWith(".png"));
  for (const name of names) {
    const bytes = readFileSync(join(files, name));
    expect(bytes.length).toBe(bytes[0]! * 4096);
    expect(bytes.every((byte) => byte === bytes[0])).toBe(true);
  }
  return names.length;
}

describe("writing files", () => {
  test.skipIf(noDisk !== null)("the disk is full: one sentence, and what was there stays", () => {
    const disk = join(folder, "disk");
    const after = `ls -a ${disk}; cat ${disk}/*.png | wc -c`;
    const run = `${process.execPath} ${script} write ${disk} 100; ${after}`;
    const command = onDisk({ folder: disk, options: "size=256k" }, run, []);
    const { stdout, exitCode } = Bun.spawnSync(command);
    const lines = String(stdout).trim().split("\n");
    expect(exitCode).toBe(0);
    const refused = lines.filter((line) => line.includes("ENOSPC"));
    expect(refused.length).toBeGreaterThan(0);
    for (const line of refused) expect(line).toMatch(/^[^\n]+\.png[^\n]+\.$/);
    expect(lines.filter((line) => line.includes(".tmp"))).toEqual([]);
    expect(Number(lines.at(-1)) % 4096).toBe(0);
  });

  test("files may not grow (RLIMIT_FSIZE): one sentence, and what was there stays", () => {
    const files = join(folder, "limited");
    mkdirSync(files);
    // 64 blocks of 512 bytes; the signal is ignored, so that the write fails.
    const { text, exitCode } = under("trap '' XFSZ; ulimit -f 64", "write", files, "60");
    expect(exitCode).toBe(0);
    expect(text).toContain("EFBIG");
    expect(checkWhole(files)).toBe(5);
    expect(readdirSync(files).filter((name) => name.includes(".tmp"))).toEqual([]);
  });

  test("no file may be opened (RLIMIT_NOFILE): one sentence", () => {
    const files = join(folder, "few");
    mkdirSync(files);
    const { text, errors, exitCode } = under("ulimit -n 24", "write", files, "5");
    if (exitCode === 0) expect(text.includes("EMFILE") || checkWhole(files) === 5).toBe(true);
    else expect(errors).toMatch(/files|EMFILE|ProcessFdQuotaExceeded/i);
  });

  test(`kill -9 at random moments leaves whole files or none (${seedName})`, async () => {
    const files = join(folder, "killed");
    mkdirSync(files);
    for (const ms of sampled(fc.integer({ min: 0, max: 30 }), 8)) {
      const child = Bun.spawn([process.execPath, script, "write", files, "100000"], {
        stdout: "pipe",
      });
      await child.stdout.getReader().read();
      await Bun.sleep(ms);
      child.kill("SIGKILL");
      await child.exited;
      checkWhole(files);
    }
    // What was left lying does not disturb the next.
    expect(under("true", "write", files, "5").exitCode).toBe(0);
    expect(checkWhole(files)).toBe(5);
  });
});

describe("keeping jobs", () => {
  test.skipIf(noDisk !== null)("the store on a full disk refuses, and has what it took", () => {
    const disk = join(folder, "disk");
    const run = `${process.execPath} ${script} store ${disk}`;
    const command = onDisk({ folder: disk, options: "size=2m" }, run, []);
    const { stdout } = Bun.spawnSync(command);
    expect(String(stdout)).toMatch(/^full: .*full.*\nall are there: \d+\n$/);
  });

  test("the clock jumps: jobs keep the order in which they came", () => {
    const store = JobStore.open(join(folder, "clock.sqlite"));
    const spec = { request: { prompt: "a" }, client: "c", dialect: "own" } as const;
    const job = { state: "queued", startedAt: null, endedAt: null, attempts: 0 } as const;
    const times = [1e12, 1e12 - 86_400_000, 1e12 + 86_400_000, 0];
    for (const [index, createdAt] of times.entries()) {
      const id = `0${index}`;
      store.add({ ...job, ...{ id, createdAt, spec, images: [], warnings: [], error: null } });
    }
    expect(store.unfinished().map(({ id }) => id)).toEqual(["00", "01", "02", "03"]);
    store.close();
  });
});

test.each(["", "{", '{"version":1,"files":{"a":1}}', "\0".repeat(100)])(
  "a cache of hashes that is %j is made again",
  (text) => {
    const place = mkdtempSync(join(folder, "hashes-"));
    writeFileSync(join(place, "hashes.json"), text);
    expect(() => new HashCache(place).save()).not.toThrow();
  },
);
