/**
 * `bun run build --kit`: dist/basedxl-gpu-kit.tar.xz, what a machine with a GPU runs that has
 * neither Bun, Zig nor a network (docs/gpu-kit.md): a native program with the kernels, lists of
 * what it measures, a small model, PyTorch's side, and the script that runs them.
 */
import {
  chmodSync,
  closeSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { withModel } from "../bench/gpu-work.ts";
import {
  barLines,
  filesOf,
  type KitFiles,
  type KitModel,
  modelRuns,
  operationLines,
} from "../bench/kit-lists.ts";
import { goldenModel, writeGoldenModel } from "../bench/support/golden-model.ts";
import { BasedXLError } from "../errors.ts";
import { openModelFolder } from "../models/folder.ts";
import { repositoryRoot } from "../setup.ts";
import { compilerOfPackages, findNvcc } from "./compiler.ts";
import { zigEnvironment } from "./native.ts";
import { type Report, runTool } from "./tool.ts";

/** Of the archive, and of the folder in it. */
export const kitName = "basedxl-gpu-kit";

interface KitOptions {
  /** Path of the archive. */
  out: string;
  /** As nvcc and `-Dcuda-architectures` name them: "90a", "80,86". */
  architectures: string;
  report: Report;
}

/**
 * Builds the kit and resolves to its size in bytes. Without nvcc it has no kernels, and only the
 * emulated driver runs it; that must be asked for by BASEDXL_NVCC=off. Throws "setup".
 */
export async function buildKit({ out, architectures, report }: KitOptions): Promise<number> {
  mkdirSync(dirname(out), { recursive: true });
  const parent = mkdtempSync(join(dirname(out), ".basedxl-kit-"));
  try {
    const folder = join(parent, kitName);
    mkdirSync(folder);
    await addProgram(folder, architectures, report);
    await addLists(folder);
    addScripts(folder);
    const archive = join(parent, "kit.tar.xz");
    await runTool({
      command: [
        ...["tar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"],
        ...["-cJf", archive, "-C", parent, kitName],
      ],
      cwd: repositoryRoot,
      env: process.env,
      failure: "The kit could not be packed",
      hint: "It needs GNU tar and xz.",
      live: false,
    });
    copyFileSync(archive, out);
  } finally {
    rmSync(parent, { recursive: true, force: true });
  }
  return statSync(out).size;
}

// --- internal ---

async function addProgram(folder: string, architectures: string, report: Report): Promise<void> {
  const root = repositoryRoot;
  const zig = compilerOfPackages(root);
  if (!zig) throw new BasedXLError("setup", "There is no Zig compiler among the packages.");
  const { nvcc, nvccNote } = findNvcc(process.env);
  if (!nvcc && process.env.BASEDXL_NVCC !== "off") {
    const sentence = "The kit needs nvcc for its kernels";
    throw new BasedXLError("setup", `${sentence}. ${nvccNote}`);
  }
  if (!nvcc) report("This kit has no kernels: it runs on the emulated driver alone.");
  const prefix = join(root, "zig-out", "kit");
  await runTool({
    command: [
      ...[zig.path, "build", "basedxl-gpu", "-Doptimize=ReleaseFast", "--prefix", prefix],
      ...(nvcc ? [`-Dnvcc=${nvcc.path}`, `-Dcuda-architectures=${architectures}`] : []),
    ],
    cwd: root,
    env: zigEnvironment(root, zig),
    failure: "The kit's program did not build",
    live: false,
  });
  copyFileSync(join(prefix, "bin", "basedxl-gpu"), join(folder, "basedxl-gpu"));
}

async function addLists(folder: string): Promise<void> {
  writeGoldenModel();
  const small = await openModelFolder(goldenModel);
  const golden: KitModel = {
    name: "golden",
    model: small,
    files: filesOf("golden", small, sizeOf),
  };
  for (const { path, source } of Object.values(golden.files)) copyInto(folder, path, source);
  await withModel(undefined, async (model) => {
    const sdxl: KitModel = { name: "sdxl", model, files: filesOf("sdxl", model, sizeOf) };
    copyHeaders(folder, sdxl.files);
    const headers = { ...golden, name: "headers", files: filesOf("headers", small, sizeOf) };
    copyHeaders(folder, headers.files);
    const runs = await modelRuns({ sdxl, golden, headers });
    writeFileSync(join(folder, "runs.json"), JSON.stringify(runs));
    const side = 2 * small.sizeMultiple;
    writeLines(join(folder, "operations.jsonl"), operationLines(model, 1024, false));
    writeLines(join(folder, "operations-small.jsonl"), operationLines(small, side, true));
  });
  writeFileSync(join(folder, "bars.tsv"), barLines());
}

function addScripts(folder: string): void {
  const root = repositoryRoot;
  const script = join(folder, "run.sh");
  copyFileSync(join(root, "src", "setup", "kit", "run.sh"), script);
  chmodSync(script, 0o755);
  for (const name of ["gpu_peer.py", "gpu_unet.py", "gpu_kit_peer.py"]) {
    copyFileSync(join(root, "tests", "reference", name), join(folder, name));
  }
  copyFileSync(join(root, "docs", "gpu-kit.md"), join(folder, "README.md"));
}

function sizeOf(path: string): number {
  return statSync(path).size;
}

function copyInto(folder: string, path: string, source: string): void {
  mkdirSync(dirname(join(folder, path)), { recursive: true });
  cpSync(source, join(folder, path));
}

/** Of sparse files the headers: the program makes the files as long as they were. */
function copyHeaders(folder: string, files: KitFiles): void {
  for (const { path, source } of Object.values(files)) {
    const file = openSync(source, "r");
    try {
      const length = Buffer.alloc(8);
      readSync(file, length, 0, 8, 0);
      const head = Buffer.alloc(8 + Number(length.readBigUInt64LE()));
      readSync(file, head, 0, head.length, 0);
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), head);
    } finally {
      closeSync(file);
    }
  }
}

function writeLines(path: string, lines: readonly object[]): void {
  writeFileSync(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
}
