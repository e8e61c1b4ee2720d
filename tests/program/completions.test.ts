/**
 * The completion scripts, run in the real shells where these are installed.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { completionScript, shells } from "../../src/commands/completions.ts";
import { commands } from "../../src/commands.ts";
import { schedulers, syncModes } from "../../src/settings/names.ts";

// Each starts processes, which take long on a machine that builds something else.
setDefaultTimeout(120_000);

const main = join(import.meta.dir, "../../src/main.ts");

/** What bash offers for the last of `words`. */
function offered(...words: string[]): string[] {
  return offeredBy(words, process.env);
}

function offeredBy(words: string[], env: NodeJS.ProcessEnv, cwd?: string): string[] {
  const script = `${completionScript("bash", commands)}
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _basedxl; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const options = { env, ...(cwd !== undefined && { cwd }) };
  const all = ["bash", "-c", script, "bash", ...words];
  const { stdout, stderr, exitCode } = Bun.spawnSync(all, options);
  expect({ stderr: stderr.toString(), exitCode }).toEqual({ stderr: "", exitCode: 0 });
  return stdout.toString().split("\n").filter(Boolean);
}

describe("bash", () => {
  test("commands, flags and what flags can be", () => {
    expect(offered("basedxl", "")).toEqual(expect.arrayContaining(Object.keys(commands)));
    expect(offered("basedxl", "do")).toEqual(["doctor"]);
    expect(offered("basedxl", "sample", "--steps")).toEqual(["--steps"]);
    expect(offered("basedxl", "sample", "--no-sp")).toEqual(["--no-split-batch"]);
    expect(offered("basedxl", "sample", "--scheduler", "")).toEqual([...schedulers]);
    expect(offered("basedxl", "sample", "--sync-mode", "s")).toEqual(
      syncModes.filter((name) => name.startsWith("s")),
    );
    expect(offered("basedxl", "completions", "f")).toEqual(["fish"]);
    expect(offered("basedxl", "sample", "--seed", "")).toEqual([]);
  });

  test("models by name, whatever is in it, or files", () => {
    const folder = mkdtempSync(join(tmpdir(), "basedxl-completions-"));
    const names = ["a b.safetensors", "a$(touch ran).safetensors", "a`touch ran`.ckpt", "z.sft"];
    mkdirSync(join(folder, "checkpoints"));
    for (const name of names) writeFileSync(join(folder, "checkpoints", name), "");
    // The script calls `basedxl` by its name.
    const program = `#!/bin/sh\nexec "${process.execPath}" "${main}" "$@"\n`;
    writeFileSync(join(folder, "basedxl"), program, { mode: 0o755 });
    const env = {
      ...process.env,
      PATH: `${folder}:${process.env.PATH}`,
      BASEDXL_MODELS_DIR: folder,
      HF_HOME: folder,
    };
    const wanted = ["a b", "a$(touch ran)", "a`touch ran`"];
    expect(offeredBy(["basedxl", "sample", "--model", "a"], env, folder).sort()).toEqual(wanted);
    expect(existsSync(join(folder, "ran"))).toBe(false);
    const files = offeredBy(["basedxl", "sample", "--model", "check"], env, folder);
    expect(files).toEqual(["checkpoints"]);
    rmSync(folder, { recursive: true, force: true });
  });

  test("files for an image, folders alone for folders of models", () => {
    expect(offered("basedxl", "sample", "--out", `${import.meta.dir}/completions`)).toEqual([
      import.meta.path,
    ]);
    const models = offered("basedxl", "sample", "--models-dir", `${join(import.meta.dir, "..")}/`);
    expect(models).toContain(join(import.meta.dir, "../fixtures"));
    expect(models).not.toContain(import.meta.path);
  });
});

describe.each([...shells])("%s", (shell) => {
  const script = completionScript(shell, commands);

  test("names every flag of every command", () => {
    for (const [name, { args }] of Object.entries(commands)) {
      expect(script).toContain(name);
      for (const [flag, arg] of Object.entries(args)) {
        if (arg.type === "positional") continue;
        const negative = arg.type === "boolean" && arg.negativeDescription !== undefined;
        const typed = negative ? `no-${flag}` : flag;
        expect(script).toContain(shell === "fish" ? `-l ${typed} ` : `--${typed}`);
      }
    }
  });

  // bash is where the tests above need it; the others are looked for.
  test.skipIf(Bun.which(shell) === null)("is a script the shell can read", () => {
    const { stderr, exitCode } = Bun.spawnSync([shell, "-n", "-c", script]);
    const parsed = shell === "fish" ? fishParse(script) : { stderr: stderr.toString(), exitCode };
    expect(parsed).toEqual({ stderr: "", exitCode: 0 });
  });
});

/** fish takes -n with a file only. */
function fishParse(script: string) {
  const stdin = new TextEncoder().encode(script);
  const { stderr, exitCode } = Bun.spawnSync(["fish", "-n", "/dev/stdin"], { stdin });
  return { stderr: stderr.toString(), exitCode };
}
