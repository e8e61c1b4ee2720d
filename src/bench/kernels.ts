/**
 * `bun run bench kernels`: registers, spills, shared memory and blocks per multiprocessor of every
 * CUDA kernel on every architecture, as reported by ptxas, the error of f16 accumulation, and where
 * there is a disassembler, what their machine code is made of. No GPU is needed. `--write` updates
 * src/bench/kernels.md and machine-code.md.
 */
import { join } from "node:path";
import { BasedXLError } from "../errors.ts";
import { writeWhole } from "../image/files.ts";
import { findNvcc } from "../setup/compiler.ts";
import { renderTable } from "./report.ts";
import { cascadedBar, measureSums, sdxlDepths } from "./support/cascaded.ts";
import {
  architectures,
  blocksPerMultiprocessor,
  type KernelResources,
  kernelFiles,
  resourcesOf,
  threadsAssumed,
} from "./support/kernel-resources.ts";
import {
  findDisassembler,
  type MachineCode,
  machineCodeOf,
  machineCodeText,
} from "./support/machine-code.ts";

/** `args`: nothing, or `--write` to replace the table in the repository. */
export async function run(args: string[]): Promise<number> {
  if (args.length > 1 || (args.length === 1 && args[0] !== "--write")) {
    process.stderr.write("Usage: bun run bench kernels [--write]\n");
    return 2;
  }
  const { nvcc, nvccNote } = findNvcc(process.env);
  if (!nvcc) throw new BasedXLError("bad-option", `This bench needs nvcc. ${nvccNote}.`);
  const all = resourcesOf(nvcc.path, kernelFiles());
  const text = `${heading(nvcc.version)}\n${kernelTable(all)}\n${sumsSection()}`;
  process.stdout.write(text);
  const writes = args[0] === "--write";
  if (writes) await writeWhole(join(import.meta.dir, "kernels.md"), Buffer.from(text));
  const disassembler = findDisassembler(nvcc.path, process.env);
  if (!disassembler) {
    process.stdout.write("\nNo cuobjdump was found: machine-code.md stays as it is.\n");
    return 0;
  }
  const tools = { nvcc: nvcc.path, disassembler };
  const code = architectures().flatMap((name) => machineCodeOf(tools, kernelFiles(), name));
  const codeText = `${codeHeading(nvcc.version)}\n${codeTable(code)}`;
  process.stdout.write(`\n${codeText}`);
  if (writes) await writeWhole(join(import.meta.dir, "machine-code.md"), Buffer.from(codeText));
  return 0;
}

/** One row per kernel, one column per architecture. */
function codeTable(all: readonly MachineCode[]): string {
  const names = architectures().map((name) => `sm_${name}`);
  const kernels = [...new Set(all.map(({ kernel }) => kernel))].sort();
  const rows = kernels.map((kernel) => {
    const cells = names.map((name) => {
      const entry = all.find((one) => one.kernel === kernel && one.architecture === name);
      return entry && !isEmpty(entry) ? machineCodeText(entry) : "";
    });
    return [kernel, ...cells];
  });
  return renderTable(["kernel", ...names], rows);
}

function kernelTable(all: readonly KernelResources[]): string {
  const names = architectures().map((name) => `sm_${name}`);
  const kernels = [...new Set(all.map(({ kernel }) => kernel))].sort();
  const rows = kernels.map((kernel) => {
    const entries = all.filter((entry) => entry.kernel === kernel);
    const first = entries[0]!;
    const cells = names.map((name) => {
      const entry = entries.find(({ architecture }) => architecture === name);
      if (!entry || isEmpty(entry)) return "";
      const spilled = entry.spilledBytes + entry.stackBytes;
      const note = spilled > 0 ? ` (${entry.spilledBytes} spilled, ${entry.stackBytes} stack)` : "";
      return `${entry.registers} x ${blocksPerMultiprocessor(entry)}${note}`;
    });
    return [kernel, String(first.threads), String(first.sharedBytes), ...cells];
  });
  return renderTable(["kernel", "threads", "shared", ...names], rows);
}

/** The error of f16 accumulation at SDXL's depths, with the kernel's arithmetic on the CPU. */
function sumsSection(): string {
  const rows = sdxlDepths.map(({ depth, where }) => {
    const { cascaded, rounding } = measureSums(depth);
    const error = [cascaded, rounding, cascadedBar].map((value) => value.toExponential(1));
    return [String(depth), where, ...error];
  });
  const heads = ["products", "SDXL's linear layers", "sums in f16", "rounding alone", "allowed"];
  return `# Error of f16 accumulation at SDXL's shapes

\`--fp16-accumulate\`, relative L2 against sums in f64 of normally distributed f16 numbers; rounding
alone is the exact sum rounded to f16.

${renderTable(heads, rows)}`;
}

// --- internal ---

/** Kernels of Hopper's own instructions have no code for others. */
function isEmpty(of: Pick<KernelResources, "kernel" | "architecture">): boolean {
  const { kernel, architecture } = of;
  return kernel.includes("wgmma") && architecture !== "sm_90a";
}

function heading(version: string): string {
  return `# Resources of the kernels

Written by \`bun run bench kernels --write\` (${version}).
Per kernel: threads of a block (its launch bound, ${threadsAssumed} where it has none), shared bytes
of a block (dynamic included), and for each architecture registers per thread x blocks per
multiprocessor. Bytes per thread that are spilled or on the stack are listed where there are any.
`;
}

function codeHeading(version: string): string {
  return `# Machine code of the kernels

Written by \`bun run bench kernels --write\` (${version}, disassembled by cuobjdump).
Per kernel and architecture: products of tensor cores (HMMA, HGMMA) where it has any, then accesses
of global memory by 16 bytes of all accesses. Narrower ones are for odd channel counts and ends.
Accesses of local memory (spills, arrays that are not in registers) are listed where there are any,
and from sm_90 on such as come before the wait for earlier kernels (early).
`;
}
