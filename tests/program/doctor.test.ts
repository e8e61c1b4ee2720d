/**
 * `doctor` on incomplete machines: no driver, a partial driver, one that hangs, one that crashes.
 * Fake libcuda libraries are compiled from Zig and found like the real one.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { homedir, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { ended } from "../../src/bench/support/binary.ts";
import { driverLine, findDriver } from "../../src/doctor/driver.ts";
import { probeGpus } from "../../src/doctor/gpu-probe.ts";
import { gpuSection } from "../../src/doctor/gpus.ts";
import { coreQuota, cpuFeatures } from "../../src/doctor/machine.ts";
import { hubModels, modelSection } from "../../src/doctor/models.ts";
import { renderReport } from "../../src/doctor/render.ts";
import { type GpuFacts, type Line, problemsOf } from "../../src/doctor/report.ts";
import { hubCacheFolder } from "../../src/hub/settings.ts";
import { probeDevice } from "../../src/native/device-info.ts";
import { compilerOfPackages } from "../../src/setup/compiler.ts";
import { zigEnvironment } from "../../src/setup/native.ts";
import { linkedModel } from "../support/linked-model.ts";

// Each starts processes, which take long on a machine that builds something else.
setDefaultTimeout(120_000);

const root = join(import.meta.dir, "../..");
const folder = mkdtempSync(join(tmpdir(), "basedxl-doctor-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function put(name: string, text: string): string {
  const path = join(folder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  return path;
}

function doctor(env: Record<string, string>, ...args: string[]) {
  const command = [process.execPath, join(root, "src", "main.ts"), "doctor", ...args];
  const all = { ...process.env, ...env };
  const stdio = { stdin: "ignore", stdout: "pipe", stderr: "pipe" } as const;
  return ended(Bun.spawn(command, { cwd: folder, env: all, ...stdio }));
}

describe("machine", () => {
  test("features that matter, of x86 and of Arm", () => {
    expect(cpuFeatures("model name\t: x\nflags\t\t: fpu sse4_2 avx2 fma hypervisor\n")).toEqual([
      "sse4_2",
      "avx2",
      "fma",
    ]);
    expect(cpuFeatures("Features\t: fp asimd evtstrm bf16\n")).toEqual(["asimd", "bf16"]);
    expect(cpuFeatures("")).toEqual([]);
  });

  test("a container's share of the cores", () => {
    expect(coreQuota("150000 100000\n")).toBe(1.5);
    expect(coreQuota("max 100000\n")).toBeNull();
    expect(coreQuota("")).toBeNull();
  });
});

describe("driver", () => {
  const version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\n";
  const gpu = { index: 0, name: "H", architecture: null, memoryBytes: null, freeBytes: null };

  test("a system without one", () => {
    const bare = findDriver({}, join(folder, "bare"));
    expect(bare).toEqual({ path: null, version: null, devicesOnBus: null });
    expect(driverLine(bare, [], {}).state).toBe("note");
  });

  test("the kernel's module, the loader's cache, the bus", () => {
    put("full/proc/driver/nvidia/version", version);
    const library = put("somewhere/libcuda.so.1", "");
    put("full/etc/ld.so.cache", `ld.so-1.7.0\0libcuda.so.1\0${library}\0/lib/libc.so.6\0`);
    for (const [device, vendor, kind] of [
      ["0", "0x10de", "0x030200"],
      ["1", "0x10de", "0x040300"],
      ["2", "0x8086", "0x030000"],
    ]) {
      put(`full/sys/bus/pci/devices/${device}/vendor`, `${vendor}\n`);
      put(`full/sys/bus/pci/devices/${device}/class`, `${kind}\n`);
    }
    const full = findDriver({}, join(folder, "full"));
    expect(full).toEqual({ path: library, version: "550.54.15", devicesOnBus: 1 });
    expect(driverLine(full, [gpu], {})).toEqual({
      state: "ok",
      label: "driver",
      text: `550.54.15, ${library}`,
    });
    // A named folder comes before the cache, as for the loader.
    const named = put("named/libcuda.so.1", "");
    expect(findDriver({ LD_LIBRARY_PATH: dirname(named) }, join(folder, "full")).path).toBe(named);
  });

  test.each([
    [{ path: null, version: null, devicesOnBus: 2 }, {}, "Install NVIDIA's driver"],
    [{ path: null, version: "1", devicesOnBus: 1 }, {}, "Container Toolkit"],
    [{ path: "/l", version: "1", devicesOnBus: 1 }, {}, "nvidia-smi"],
    [{ path: "/l", version: "1", devicesOnBus: 1 }, { CUDA_VISIBLE_DEVICES: "" }, "unset it"],
  ])("a partial driver is a problem: %j %j", (facts, env, advice) => {
    const line = driverLine(facts, [], env);
    expect(line).toMatchObject({ state: "problem", advice: expect.stringContaining(advice) });
  });
});

describe("GPUs", () => {
  const gpu = (index: number) => ({
    index,
    name: "NVIDIA H200",
    architecture: "sm_90",
    memoryBytes: 150e9,
    freeBytes: 149e9,
  });
  const facts: GpuFacts = {
    driver: { path: "/lib/libcuda.so.1", version: "550.54.15", devicesOnBus: 2 },
    libraries: [
      { name: "cuDNN", neededFor: "convolutions", version: "9.1", path: "/x", problem: null },
      {
        name: "NCCL",
        neededFor: "several machines",
        version: null,
        path: null,
        problem: { what: "NCCL was not found.", advice: "Install libnccl2." },
      },
    ],
    gpus: [gpu(0), gpu(1)],
    peers: [
      { from: 0, to: 1, direct: true, bytesPerSecond: 200e9, problem: null },
      {
        from: 1,
        to: 0,
        direct: true,
        bytesPerSecond: null,
        problem: { what: "The copy hung.", advice: "Switch the IOMMU off." },
      },
    ],
  };

  test("reports facts, and problems in red with their advice", () => {
    const section = gpuSection({ facts }, "sm_90a", {});
    const text = renderReport({ gpus: section }, false);
    expect(text).toBe(`GPUs
  ok   driver       550.54.15, /lib/libcuda.so.1
  ok   GPU 0        NVIDIA H200, sm_90, 149.0 GB of 150.0 GB free
  ok   GPU 1        NVIDIA H200, sm_90, 149.0 GB of 150.0 GB free
  ok   kernels      sm_90a
  ok   cuDNN        9.1, /x
  BAD  NCCL         NCCL was not found.
                    -> Install libnccl2.
  ok   copies       1 pair copy, 1 directly, slowest 200.0 GB/s
  BAD  copy 1 to 0  The copy hung.
                    -> Switch the IOMMU off.

2 problems: the arrows (->) give advice.
`);
    expect(problemsOf({ gpus: section })).toHaveLength(2);
    expect(renderReport({ gpus: section }, true)).toContain("\x1b[31m  BAD  NCCL");
  });

  test("a build without kernels is a problem only where there is a GPU", () => {
    const states = (of: GpuFacts) =>
      gpuSection({ facts: of }, "", {}).lines.map(({ label, state }: Line) => `${label} ${state}`);
    expect(states(facts)).toContain("kernels problem");
    const none = { ...facts, gpus: [], driver: { path: null, version: null, devicesOnBus: 0 } };
    expect(states(none)).toEqual(["driver note"]);
  });
});

describe("the probe", () => {
  const child = (script: string) => [process.execPath, "-e", script];

  test.each([
    ["hangs", "setTimeout(() => {}, 60000)", 500, "did not answer within"],
    ["crashes", 'process.kill(process.pid, "SIGSEGV")', 20_000, "was ended by SIGSEGV"],
    ["fails", "throw new Error()", 20_000, "The driver query failed"],
    ["prints invalid JSON", 'console.log("no JSON")', 20_000, "The driver query failed"],
  ])("one that %s becomes a red line", async (_, script, limitMs, sentence) => {
    const result = await probeGpus(child(script), limitMs);
    expect(result).toMatchObject({ problem: { what: expect.stringContaining(sentence) } });
    const [line] = gpuSection(result, null, {}).lines;
    expect(line).toMatchObject({ state: "problem" });
  });
});

describe("models", () => {
  /** A snapshot of the reference model in the hub's cache; `change` may damage it. */
  const snapshot = (model: string, commit: string, change?: (folder: string) => void) => {
    const copy = linkedModel(folder);
    change?.(copy);
    const path = join(folder, "hub", `models--${model.replace("/", "--")}`, "snapshots", commit);
    mkdirSync(dirname(path), { recursive: true });
    renameSync(copy, path);
    return path;
  };
  const edit = (file: string, from: string, to: string) => (copy: string) => {
    const path = join(copy, file);
    const text = readFileSync(path, "utf8");
    expect(text).toContain(from);
    writeFileSync(path, text.replace(from, to));
  };
  const weights = "unet/diffusion_pytorch_model.safetensors";

  test("models of the hub's cache: what loads, by refs/main, and why others do not", async () => {
    const hub = join(folder, "hub");
    const current = snapshot("acme/sdxl", "fff0");
    snapshot("acme/sdxl", "000old");
    put("hub/models--acme--sdxl/refs/main", "fff0\n");
    const only = snapshot("acme/only", "abc");
    const classLine = '"StableDiffusionXLPipeline"';
    snapshot("b/inpainting", "1", edit("unet/config.json", '"in_channels": 4', '"in_channels": 9'));
    snapshot("b/dangling", "1", (copy) => {
      rmSync(join(copy, weights));
      symlinkSync("../../../blobs/gone", join(copy, weights));
    });
    snapshot("b/cut", "1", (copy) => {
      const bytes = readFileSync(join(copy, weights));
      rmSync(join(copy, weights));
      writeFileSync(join(copy, weights), bytes.subarray(0, bytes.length - 4));
    });
    snapshot("b/flow", "1", edit("scheduler/scheduler_config.json", '"epsilon"', '"flow"'));
    // The header is as long as before: one tensor has another name.
    const rename = (from: string, to: string) => (copy: string) => {
      const bytes = Buffer.from(readFileSync(join(copy, weights)));
      const at = bytes.indexOf(from);
      expect(at).toBeGreaterThan(0);
      bytes.write(to, at);
      rmSync(join(copy, weights));
      writeFileSync(join(copy, weights), bytes);
    };
    snapshot("b/lacking", "1", rename('"conv_out.bias"', '"conv_xxx.bias"'));
    snapshot("c/flux", "1", edit("model_index.json", classLine, '"FluxPipeline"'));
    snapshot("c/moved", "1");
    put("hub/models--c--moved/refs/main", "2");
    put("hub/models--c--empty/refs/main", "1");
    put("hub/datasets--x--y/refs/main", "1");

    const { usable, refused } = await hubModels(hub);
    expect(usable).toEqual([
      { name: "acme/only", path: only },
      { name: "acme/sdxl", path: current },
    ]);
    expect(refused.map(({ name, reason }) => `${name}: ${reason}`)).toEqual([
      expect.stringContaining("b/cut: unet/diffusion_pytorch_model.safetensors is cut off: 4 of"),
      expect.stringContaining(`b/dangling: ${weights} is a link to ../../../blobs/gone`),
      expect.stringContaining('b/flow: scheduler/scheduler_config.json: prediction_type is "flow"'),
      expect.stringContaining("b/inpainting: The model 1 is for inpainting"),
      expect.stringContaining("b/lacking: tensor conv_out.bias is missing from"),
    ]);
    expect(await hubModels(join(folder, "no-such-folder"))).toEqual({ usable: [], refused: [] });

    const { lines } = await modelSection({ HF_HUB_CACHE: hub });
    const okTexts = lines.flatMap(({ state, text }) => (state === "ok" ? [text] : []));
    expect(okTexts.slice(1)).toEqual([`--model ${only}`, `--model ${current}`]);
    expect(lines.filter(({ state }) => state === "note")).toHaveLength(4);
    expect(hubCacheFolder({ HF_HOME: "/hf" })).toBe("/hf/hub");
    expect(hubCacheFolder({ HF_HOME: "~/hf" })).toBe(join(homedir(), "hf/hub"));
    expect(hubCacheFolder({ HF_HUB_CACHE: "~/hub" })).toBe(join(homedir(), "hub"));
    expect(hubCacheFolder({ HOME: "/h" })).toBe("/h/.cache/huggingface/hub");
  });

  test("a wrong BASEDXL_MODEL is a problem", async () => {
    const { lines } = await modelSection({ BASEDXL_MODEL: "/no-such-folder" });
    expect(lines[0]).toMatchObject({ state: "problem", advice: expect.stringContaining("unset") });
    // Its folder opens, but its weights are not those of its config.
    const layers = edit("unet/config.json", '"layers_per_block": 2', '"layers_per_block": 1');
    const other = snapshot("d/other", "1", layers);
    const { lines: others } = await modelSection({ BASEDXL_MODEL: other });
    expect(others[0]).toMatchObject({ state: "problem" });
  });

  test("folders of models are counted, and those that are not there are named", async () => {
    const loras = dirname(put("folders/loras/a.safetensors", ""));
    const { lines, facts } = await modelSection({ BASEDXL_MODELS_DIR: `${loras}:/no-such-folder` });
    expect(lines.at(-2)).toMatchObject({
      state: "ok",
      text: expect.stringMatching(/^1 files? of/),
    });
    expect(lines.at(-1)?.text).toMatch(/no-such-folder does not exist/);
    expect(facts.models_dir).toBe(`${loras}:/no-such-folder`);
  });
});

describe("the command", () => {
  test("one screen for people, one object for scripts, and an exit code that agrees", async () => {
    const text = await doctor({});
    expect(text.stderr).toBe("");
    expect(text.stdout.split("\n").length).toBeLessThanOrEqual(40);
    for (const title of ["Machine", "Program", "GPUs", "Models", "Defaults of sample"]) {
      expect(text.stdout).toContain(`${title}\n`);
    }
    const json = await doctor({}, "--json");
    const { problems, machine, program, choice } = JSON.parse(json.stdout);
    expect(json.exitCode).toBe(problems.length === 0 ? 0 : 1);
    expect(text.exitCode).toBe(json.exitCode);
    expect(program).toMatchObject({ binary: false, cache: null });
    const { gpuCount, cudaKernels } = probeDevice();
    const device = gpuCount > 0 && cudaKernels !== "" ? "cuda" : "cpu";
    expect(choice).toMatchObject({ device, ranks: 1, threads: machine.cores });
  });

  test.each([
    [["--gpu-limit", "0"], "--gpu-limit must be a whole number of seconds from 1 to 120"],
    [["--gpu-limit", "x"], 'not "x"'],
    [["now"], '"now" is not understood'],
    [["--jsn"], "Did you mean --json?"],
  ])("refuses %j", async (args, sentence) => {
    const { exitCode, stderr } = await doctor({}, ...args);
    expect(exitCode).toBe(2);
    expect(stderr).toContain(sentence);
  });

  test.skipIf(process.platform !== "linux").each([
    ["hangs", "while (true) sleep();", "did not answer within 2 s"],
    ["crashes", "@trap();", "was ended by"],
    ["shows no GPU", "return 100;", "but it reports no GPU"],
  ])("a driver that %s", async (name, body, sentence) => {
    const libraries = fakeDriver(name.replaceAll(" ", "-"), body);
    const env = { LD_LIBRARY_PATH: libraries };
    const { stdout, stderr, exitCode } = await doctor(env, "--gpu-limit", "2", "--json");
    expect({ stderr, exitCode }).toEqual({ stderr: "", exitCode: 1 });
    const { problems } = JSON.parse(stdout) as { problems: { what: string; advice: string }[] };
    expect(problems.map(({ what }) => what).join("\n")).toContain(sentence);
    for (const { advice } of problems) expect(advice.length).toBeGreaterThan(10);
  });
});

/** A folder with a libcuda.so.1 of all functions that are asked for; cuInit is `body`. */
function fakeDriver(name: string, body: string): string {
  const table = readFileSync(join(root, "zig", "nvidia", "driver.zig"), "utf8");
  const names = [...table.matchAll(/^ {4}(cu\w+): \*const fn/gm)].map(([, each = ""]) => each);
  expect(names).toContain("cuInit");
  const others = names.filter((each) => each !== "cuInit");
  const source = put(
    `${name}/cuda.zig`,
    `const linux = @import("std").os.linux;
    fn sleep() void { _ = linux.nanosleep(&.{ .sec = 60, .nsec = 0 }, null); }
    export fn cuInit(_: c_uint) c_int { ${/sleep/.test(body) ? "" : "_ = &sleep;"} ${body} }
    ${others.map((each) => `export fn ${each}() c_int { return 100; }`).join("\n")}`,
  );
  const zig = compilerOfPackages(root);
  if (!zig) throw new Error("the set-up left no Zig compiler");
  const libraries = join(folder, name);
  const out = `-femit-bin=${join(libraries, "libcuda.so.1")}`;
  const command = [zig.path, "build-lib", "-dynamic", "-fPIC", "-OReleaseSmall", out, source];
  const env = zigEnvironment(root, zig);
  const { exitCode, stderr } = Bun.spawnSync(command, { cwd: libraries, env });
  expect({ stderr: stderr.toString(), exitCode }).toEqual({ stderr: "", exitCode: 0 });
  return libraries;
}
