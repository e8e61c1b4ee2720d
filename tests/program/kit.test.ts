/**
 * The kit for GPUs: its script with parts that fail and hang, its lists, and, where
 * BASEDXL_REHEARSE_KIT is set as in `.ci/run`, all of it on the emulated driver in a system that
 * has neither Bun, Zig nor the repository.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { withModel } from "../../src/bench/gpu-work.ts";
import { barLines, filesOf, modelRuns, operationLines } from "../../src/bench/kit-lists.ts";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { sizeOfModelConfig, sizeOfStepCoefficients } from "../../src/native/abi.ts";
import { emulatorPath } from "../../src/native/library.ts";
import {
  addLibrary,
  addPrograms,
  makeBareRoot,
  noBareRootReason,
  runIn,
} from "../support/bare-root.ts";

setDefaultTimeout(600_000);

const script = join(import.meta.dir, "../../src/setup/kit/run.sh");
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "basedxl-kit-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function writeProgram(path: string, text: string): void {
  writeFileSync(path, `#!/bin/bash\n${text}\n`);
  chmodSync(path, 0o755);
}

/** Runs the script with a program of `commands`, a case for each of its subcommands. */
async function runScript(name: string, commands: string, env: Record<string, string> = {}) {
  const kit = join(folder, name);
  mkdirSync(join(kit, "bin"), { recursive: true });
  copyFileSync(script, join(kit, "run.sh"));
  writeFileSync(join(kit, "bars.tsv"), "x: step\t28.5\tfirst bar\nx: off\t5\tbar\n");
  writeProgram(join(kit, "basedxl-gpu"), `case $1 in ${commands};; verify) :;; esac`);
  const clocks = "case $1 in --query*) echo 1980 MHz; exec sleep 100;; esac";
  const tools = { "compute-sanitizer": "", ncu: "echo profiled", "nvidia-smi": clocks };
  for (const [tool, text] of Object.entries(tools)) writeProgram(join(kit, "bin", tool), text);
  const child = Bun.spawn(["bash", join(kit, "run.sh")], {
    env: {
      PATH: `${join(kit, "bin")}:${process.env.PATH}`,
      OUT: join(kit, "out"),
      PYTHON: "no-such-python",
      BASEDXL_KIT_EMULATOR: "none.so",
      ...env,
    },
    stdout: "ignore",
    stderr: "inherit",
  });
  const exitCode = await child.exited;
  const read = (file: string) => readFileSync(join(kit, "out", file), "utf8");
  return { exitCode, summary: read("summary.txt"), read, files: readdirSync(join(kit, "out")) };
}

const figures = [
  ["x: step", 28.41, "ms"],
  ["x: off", -7.5, "%"],
  ["y", 1, "s"],
  ["PyTorch compiled, x: step", 35.5, "ms"],
  ["PyTorch, z", 2, "ms"],
]
  .map((line) => `echo "figure\t${line.join("\t")}"`)
  .join("; ");

describe("the script", () => {
  test("goes on after a part that fails and one that hangs and ignores a signal", async () => {
    const { exitCode, summary, read, files } = await runScript(
      "parts",
      "model) echo before; exit 3;; bench) echo begun; trap '' TERM; while :; do sleep 1; done",
      { BASEDXL_KIT_PART_SECONDS: "3" },
    );
    expect(exitCode).toBe(1);
    expect(summary).toMatch(/^FAILED +small images +\d+ s +exit code 3: see images.txt$/m);
    expect(summary).toMatch(/^timed out +operations +\d+ s +see operations.txt$/m);
    expect(summary).toMatch(/^not run +PyTorch +0 s +there is no no-such-python$/m);
    expect(summary).toMatch(/^passed +compute-sanitizer memcheck/m);
    expect(summary).toMatch(/^passed +ncu/m);
    expect(read("images.txt")).toContain("before");
    expect(read("operations.txt")).toContain("begun");
    expect(read("ncu.txt")).toContain("profiled");
    expect(read("machine.txt")).toContain("1980 MHz");
    expect(files.length).toBeLessThanOrEqual(8);
  });

  test("goes on behind what ended a process or lost it the GPU", async () => {
    const bench = 'printf "UNet a\\nUNet b"; kill -SEGV $$';
    const { exitCode, summary, read } = await runScript(
      "lost",
      [
        "model) :",
        `bench) ${["[ $5 -gt 0 ] && { echo UNet c; exit; }", bench].join(";")}`,
        'verify) case $4 in 0) echo "begins a"; echo "begins b"; echo "1 ok, 2 not run."; exit 1',
        '2) echo "begins c"; kill -ABRT $$',
        '*) echo "skipped $4"; esac',
      ].join(";; "),
    );
    expect(exitCode).toBe(1);
    expect(summary).toMatch(/^FAILED +verify --quick +\d+ s +exit code 1: see verify.txt$/m);
    expect(summary).toMatch(/^FAILED +verify --quick, after the first 2 +\d+ s +exit code 134/m);
    expect(summary).toMatch(/^passed +verify --quick, after the first 3 /m);
    expect(read("verify.txt")).toContain("skipped 3");
    expect(summary).toMatch(/^FAILED +operations +\d+ s +exit code 139/m);
    expect(summary).toMatch(/^passed +operations, after the first 2 /m);
    expect(read("operations.txt")).toContain("UNet c");
  });

  test("puts bars beside figures, and passes where all parts do", async () => {
    const { exitCode, summary } = await runScript("figures", `model) ${figures};; bench) :`);
    expect(summary).toMatch(/^x: step +28.41 ms +first bar 28.5: met$/m);
    expect(summary).toMatch(/^x: off +-7.5 % +bar 5: MISSED$/m);
    expect(summary).toMatch(/^y +1 s$/m);
    expect(summary).toMatch(/^PyTorch compiled, x: step +35.5 ms +1.25 x ours$/m);
    expect(summary).toMatch(/^PyTorch, z +2 ms$/m);
    expect(exitCode).toBe(0);
  });

  test("begins nothing when its time is over", async () => {
    const { summary } = await runScript("late", "*) :", { BASEDXL_KIT_SECONDS: "2" });
    expect(summary).toMatch(/^not run +operations +0 s +no time was left$/m);
  });

  test.skipIf(Bun.which("shellcheck") === null)("has nothing that shellcheck knows", () => {
    expect(Bun.spawnSync(["shellcheck", script]).stdout.toString()).toBe("");
  });
});

describe("the lists", () => {
  test("have the real graph's operations and images whose bars have figures", async () => {
    const small = await openModelFolder(goldenModel);
    const sizeOf = (path: string) => statSync(path).size;
    const golden = { name: "golden", model: small, files: filesOf("golden", small, sizeOf) };
    await withModel(undefined, async (model) => {
      const lines = operationLines(model, 1024, false);
      expect(lines.slice(0, 2).map(({ part }) => part)).toEqual(["ceiling", "ceiling"]);
      expect(lines.length).toBeGreaterThan(60);
      // By far the most of an image: the feed-forward's products at 32x32.
      expect(lines[2]).toMatchObject({ part: "UNet", operation: { in: 1280, rows: 32 } });
      const parts = lines.slice(2).map(({ part }) => part);
      expect(lines.at(-1)).toMatchObject({ part: "int8" });
      expect(parts.lastIndexOf("UNet")).toBeGreaterThan(parts.indexOf("VAE"));
      expect(parts.slice(0, 10)).toEqual(Array(10).fill("UNet"));
      const sdxl = { name: "sdxl", model, files: filesOf("sdxl", model, sizeOf) };
      const headers = { ...golden, name: "headers" };
      const { models, runs } = await modelRuns({ sdxl, golden, headers });
      for (const { config } of models) expect(config).toHaveLength(2 * sizeOfModelConfig);
      for (const run of runs) expect(run.steps.length % (2 * sizeOfStepCoefficients)).toBe(0);
      expect(runs[0]).toMatchObject({ model: "golden", part: "small" });
      const [, listed = ""] = /for name in ([\w -]+);/.exec(readFileSync(script, "utf8")) ?? [];
      for (const name of listed.split(" ")) {
        expect(runs.some(({ part }) => part === name)).toBe(true);
      }
      const compared = runs.filter(({ part }) => part === "dependent-launches");
      expect(compared.map((run) => run.dependent_launches)).toEqual([false, true]);
      const inInt8 = runs.filter(({ int8 }) => int8);
      expect(inInt8.map(({ part }) => part)).toEqual(["small", "int8"]);
      const names = runs.map(({ name }) => `${name}: `);
      for (const line of barLines().trim().split("\n")) {
        expect(names.some((name) => line.startsWith(name))).toBe(true);
      }
    });
  });
});

const isAsked = process.env.BASEDXL_REHEARSE_KIT !== undefined;
const reason = isAsked ? noBareRootReason() : "BASEDXL_REHEARSE_KIT is not set";

describe("the kit", () => {
  if (reason !== null) process.stderr.write(`The kit is not rehearsed: ${reason}.\n`);

  test.skipIf(reason !== null)("runs where there is nothing else", async () => {
    const { buildKit, kitName } = await import("../../src/setup/kit.ts");
    await import("../support/emulator.ts");
    process.env.BASEDXL_NVCC = "off";
    const archive = join(folder, "kit.tar.xz");
    const report = (line: string) => void process.stderr.write(`${line}\n`);
    expect(await buildKit({ out: archive, architectures: "90a", report })).toBeLessThan(40e6);

    const root = join(folder, "root");
    mkdirSync(root);
    const there = join(root, kitName);
    expect(Bun.spawnSync(["tar", "xf", archive, "-C", root]).exitCode).toBe(0);
    makeBareRoot(root, join(there, "basedxl-gpu"));
    addPrograms(root, [
      ...["bash", "env", "timeout", "mkdir", "rm", "mv", "cat", "grep", "awk", "wc", "sleep"],
      ...["date", "uname", "dirname", "tail", "tr", "truncate", "mktemp", "chmod"],
    ]);
    addLibrary(root, emulatorPath(), "emulated.so");
    // What the machine has and a bare system has not: programs that run what follows.
    const rest = 'while [ "$1" != /basedxl-gpu-kit/basedxl-gpu ]; do shift; done; exec "$@"';
    writeProgram(join(root, "bin/compute-sanitizer"), rest);
    writeProgram(join(root, "bin/ncu"), rest);
    const torch = 'case $1 in *peer.py) echo "figure\tPyTorch, step\t9\tms";; -*) :;; esac';
    writeProgram(join(root, "bin/python3"), torch);

    const child = Bun.spawn(runIn(root, ["/bin/bash", `/${kitName}/run.sh`]), {
      env: { PATH: "/bin:/usr/bin:/usr/sbin", OUT: "/out", BASEDXL_KIT_EMULATOR: "/emulated.so" },
      stderr: "inherit",
    });
    const text = await new Response(child.stdout).text();
    expect({ text, exitCode: await child.exited }).toMatchObject({ exitCode: 0 });
    const summary = readFileSync(join(root, "out/summary.txt"), "utf8");
    for (const part of [
      "machine",
      "verify --quick",
      "small images",
      "operations",
      "PyTorch",
      "ncu",
    ]) {
      expect(summary).toMatch(new RegExp(`^passed +${part} `, "m"));
    }
    expect(summary).toMatch(/^passed +compute-sanitizer memcheck/m);
    expect(summary).toMatch(/^passed +compute-sanitizer racecheck/m);
    expect(summary).toMatch(/^small model, random weights: step +\d/m);
    const images = readFileSync(join(root, "out/images.txt"), "utf8");
    expect(images).toContain("no graphs: latents");
    expect(images).toContain("dependent launches: latents");
    expect(images).toContain("int8: latents");
    const files = readdirSync(join(root, "out"));
    expect(files.toSorted()).toEqual(
      ["images", "machine", "ncu", "operations", "sanitizer", "summary", "torch", "verify"].map(
        (name) => `${name}.txt`,
      ),
    );
  });
});
