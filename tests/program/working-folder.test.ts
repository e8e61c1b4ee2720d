/**
 * Runs from a deleted folder: relative paths are refused, and nothing is written.
 */
import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, realpathSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

const main = join(import.meta.dir, "../../src/main.ts");
const kept = mkdtempSync(join(tmpdir(), "basedxl-kept-"));
afterAll(() => rmSync(kept, { recursive: true }));

/** Runs the command in a folder that is deleted before it starts, and possibly made anew. */
function runDeleted(args: string[], after = "") {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-gone-"));
  const script = `cd "$1" && rmdir "$1" && ${after} shift && exec "$@"`;
  const command = ["sh", "-c", script, "sh", folder, process.execPath, main, ...args];
  const { exitCode, stderr } = Bun.spawnSync(command, { stdin: "ignore" });
  const left = existsSync(folder) ? readdirSync(folder) : [];
  rmSync(folder, { recursive: true, force: true });
  return { exitCode, stderr: stderr.toString(), left };
}

const quick = ["--steps", "1", "--seed", "1", "--device", "cpu"];
const out = join(kept, "a.png");

test.each([
  ["sample.png", ["sample", ...quick]],
  ["b.png", ["sample", ...quick, "--out", "b.png"]],
  ["../b.png", ["sample", ...quick, "--out", "../b.png"]],
  ["l.safetensors", ["sample", ...quick, "--out", out, "--save-latents", "l.safetensors"]],
  ["model", ["sample", ...quick, "--out", out, "--model", "model"]],
])("%s is not looked for elsewhere", (path, args) => {
  // Where Bun would resolve relative names: the folder of its own executable.
  const other = dirname(realpathSync(process.execPath));
  const before = [readdirSync(other), readdirSync(tmpdir()).filter((name) => /png$/.test(name))];
  for (const after of ["", 'mkdir "$1" &&']) {
    const { exitCode, stderr, left } = runDeleted(args, after);
    expect(stderr).toContain(
      `error: Cannot find ${path}: the current folder was deleted; change to another folder, or ` +
        "give an absolute path.\n",
    );
    expect(stderr).not.toContain("Wrote");
    expect({ exitCode, left }).toEqual({ exitCode: 1, left: [] });
  }
  expect([readdirSync(other), readdirSync(tmpdir()).filter((name) => /png$/.test(name))]).toEqual(
    before,
  );
  expect(readdirSync(kept)).toEqual([]);
});

test("absolute paths need no current folder", () => {
  const { exitCode, stderr } = runDeleted(["sample", ...quick, "--out", out]);
  expect([exitCode, stderr]).toEqual([0, expect.stringContaining(`Wrote ${out}`)]);
  expect(statSync(out).size).toBeGreaterThan(1000);
});
