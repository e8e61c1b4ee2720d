/**
 * The machine code of the CUDA kernels, by NVIDIA's disassembler: what their instructions say
 * without a GPU. `cuobjdump` is in the CUDA toolkit and in Triton's wheel.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";

const root = join(import.meta.dir, "../../..");
const outputBytesMax = 256 << 20;
const globalAccesses = ["LDG", "STG", "LDGSTS", "ATOMG", "RED", "LD", "ST", "ATOM"];

export interface MachineCode {
  kernel: string;
  /** nvcc's name, such as "sm_90a". */
  architecture: string;
  /** Products of tensor cores: HMMA, IMMA of integers, or HGMMA of a warpgroup. */
  tensor: number;
  /** Accesses of global memory, copies to shared memory among them. */
  global: number;
  /** Of these, by 16 bytes. */
  wide: number;
  /** Accesses of local memory: spills, and arrays that are not in registers. */
  local: number;
  /** Accesses of global memory ahead of the wait for earlier kernels; all, where it never waits. */
  early: number;
}

/** The path of cuobjdump: beside nvcc, on the PATH, or in a Python environment's Triton. */
export function findDisassembler(
  nvcc: string,
  env: Readonly<Record<string, string | undefined>>,
): string | undefined {
  const folders = [dirname(nvcc), ...(env.PATH ?? "").split(delimiter)];
  const python = env.VIRTUAL_ENV;
  if (python) {
    const found = new Bun.Glob("lib/python*/site-packages/triton/backends/nvidia/bin/cuobjdump");
    for (const path of found.scanSync({ cwd: python })) folders.push(dirname(join(python, path)));
  }
  return folders
    .filter((folder) => folder !== "")
    .map((folder) => join(folder, "cuobjdump"))
    .find((path) => existsSync(path));
}

/** Of the kernels in these files of cuda/, compiled for one architecture such as "90a". */
export function machineCodeOf(
  tools: { nvcc: string; disassembler: string },
  files: readonly string[],
  architecture: string,
): MachineCode[] {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-cubins-"));
  try {
    const source = join(folder, "kernels.cu");
    const cubin = join(folder, "kernels.cubin");
    writeFileSync(source, files.map((name) => `#include "${name}"\n`).join(""));
    const target = ["-cubin", "-O3", "-std=c++17", `-arch=sm_${architecture}`];
    outputOf(tools.nvcc, [...target, "-I", join(root, "cuda"), "-o", cubin, source]);
    return parseSass(outputOf(tools.disassembler, ["-sass", cubin]), `sm_${architecture}`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** What `cuobjdump -sass` prints. */
export function parseSass(text: string, architecture: string): MachineCode[] {
  const all: MachineCode[] = [];
  let waits = false;
  for (const line of text.split("\n")) {
    const kernel = /^\s*Function : (\S+)/.exec(line)?.[1];
    if (kernel) {
      all.push({ kernel, architecture, tensor: 0, global: 0, wide: 0, local: 0, early: 0 });
      waits = false;
    }
    const last = all.at(-1);
    const instruction = /^\s+\/\*[0-9a-f]{4,}\*\/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)/.exec(line)?.[1];
    if (!instruction || !last) continue;
    const [name = "", ...modifiers] = instruction.split(".");
    if (["HMMA", "IMMA", "HGMMA"].includes(name)) last.tensor++;
    if (name === "LDL" || name === "STL") last.local++;
    if (name === "ACQBULK") waits = true;
    if (!globalAccesses.includes(name)) continue;
    if (!waits) last.early++;
    if (!["LDG", "STG", "LDGSTS"].includes(name)) continue;
    last.global++;
    if (modifiers.includes("128")) last.wide++;
  }
  return all.sort((a, b) => (a.kernel < b.kernel ? -1 : 1));
}

/** As a table has it: tensor core products, then 16-byte accesses of all accesses. */
export function machineCodeText(code: MachineCode): string {
  const { architecture, tensor, wide, global, local, early } = code;
  const products = tensor > 0 ? `${tensor} + ` : "";
  const isEarly = early > 0 && Number.parseInt(architecture.slice(3), 10) >= 90;
  const notes = [...(local > 0 ? [`${local} local`] : []), ...(isEarly ? [`${early} early`] : [])];
  return [`${products}${wide}/${global}`, ...notes].join(", ");
}

// --- internal ---

function outputOf(tool: string, args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(tool, args, {
    encoding: "utf8",
    maxBuffer: outputBytesMax,
  });
  if (status !== 0) throw new Error(`${tool} failed: ${stderr}`);
  return stdout;
}
