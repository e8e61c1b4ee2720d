/**
 * Resources of every kernel on every architecture of the default build, as reported by ptxas:
 * registers, spilled bytes, stack, shared memory; and the resulting blocks per multiprocessor.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dir, "../../..");

export interface KernelResources {
  kernel: string;
  /** nvcc's name, such as "sm_90a". */
  architecture: string;
  registers: number;
  /** Bytes of register spills per thread, stores and loads. */
  spilledBytes: number;
  /** Local memory per thread: arrays that are not in registers. */
  stackBytes: number;
  sharedBytes: number;
  /** Threads per block: the kernel's launch bound, or `threadsAssumed` where it has none. */
  threads: number;
}

/** Threads per block of most launchers, for kernels without a launch bound. */
export const threadsAssumed = 256;

/** Dynamic shared memory that launchers request, by kernel name without its type. */
const dynamicSharedBytes: Record<string, number> = {
  attention_32_64: (64 + 4 * 64) * 32 * 2,
  attention_64_64: (64 + 4 * 64) * 64 * 2,
  attention_64_128: (128 + 4 * 64) * 64 * 2,
  attention_96_64: (64 + 4 * 64) * 96 * 2,
  attention_128_64: (64 + 4 * 64) * 128 * 2,
  attention_elements: (64 + 4 * 64) * 128 * 2,
  cross_attention_wgmma: 4 * 320 * 64 * 2 + 1024,
  // At 32 groups; sums of whole blocks.
  group_norm_apply: 2 * 32 * 4,
  group_norm_stats: 2 * 512 * 8 * 4,
  linear_geglu: 3 * 256 * 32 * 2,
  linear_int8: 3 * 256 * 64,
  linear_int8_geglu: 3 * 256 * 64,
  linear_geglu_wgmma: 4 * 384 * 64 * 2 + 1024,
  matmul_cascaded: 3 * 256 * 32 * 2,
  // Of the longest row.
  quantize_rows: 512 * 84,
};

/** Limits per multiprocessor (CUDA Programming Guide, "Technical Specifications"). */
const multiprocessors: Record<string, { warps: number; blocks: number; sharedKiB: number }> = {
  sm_80: { warps: 64, blocks: 32, sharedKiB: 164 },
  sm_86: { warps: 48, blocks: 16, sharedKiB: 100 },
  sm_89: { warps: 48, blocks: 24, sharedKiB: 100 },
  sm_90a: { warps: 64, blocks: 32, sharedKiB: 228 },
  sm_100: { warps: 64, blocks: 32, sharedKiB: 228 },
  sm_120: { warps: 48, blocks: 24, sharedKiB: 100 },
};

/** The default build's architectures, such as "90a". */
export function architectures(): string[] {
  const text = readFileSync(join(root, "cuda", "build.zig"), "utf8");
  const [, list = ""] = /default_architectures = "([\w,]+)"/.exec(text) ?? [];
  return list.split(",");
}

/** The files of cuda/ that define kernels. */
export function kernelFiles(): string[] {
  return readdirSync(join(root, "cuda"))
    .filter((name) => name.endsWith(".cu"))
    .sort();
}

/**
 * Compiles these files of cuda/ for every architecture, as one unit like the build, since headers
 * cost more than most kernels. Throws nvcc's message on failure.
 */
export function resourcesOf(nvcc: string, files: readonly string[]): KernelResources[] {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-kernels-"));
  try {
    const source = join(folder, "kernels.cu");
    writeFileSync(source, files.map((name) => `#include "${name}"\n`).join(""));
    const targets = architectures().map((name) => `-gencode=arch=compute_${name},code=sm_${name}`);
    const common = ["-O3", "-std=c++17", "-I", join(root, "cuda"), source, "-o"];
    const fatbin = ["-fatbin", "--threads", "2", "-Xptxas", "-v", ...targets, ...common];
    const report = nvccSays(nvcc, [...fatbin, join(folder, "kernels.fatbin")]);
    const ptx = join(folder, "kernels.ptx");
    nvccSays(nvcc, ["-ptx", "-arch=compute_80", ...common, ptx]);
    const threads = threadsOf(readFileSync(ptx, "utf8"));
    return parsePtxas(report).map((entry) => ({
      ...entry,
      threads: threads.get(entry.kernel) ?? threadsAssumed,
      sharedBytes: entry.sharedBytes + (dynamicSharedBytes[baseName(entry.kernel)] ?? 0),
    }));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Parses the output of `-Xptxas -v`, kernel by kernel; `sharedBytes` is the static part. */
export function parsePtxas(report: string): Omit<KernelResources, "threads">[] {
  const blocks = report.split(/Compiling entry function '/).slice(1);
  return blocks.map((block) => {
    const [, kernel, architecture] = /^(\w+)' for '(\w+)'/.exec(block) ?? [];
    const number = (pattern: RegExp) => Number(pattern.exec(block)?.[1] ?? 0);
    const registers = number(/Used (\d+) registers/);
    if (!kernel || !architecture || !registers) {
      throw new Error(`unknown output of ptxas: ${block.slice(0, 200)}`);
    }
    return {
      kernel,
      architecture,
      registers,
      spilledBytes: number(/(\d+) bytes spill stores/) + number(/(\d+) bytes spill loads/),
      stackBytes: number(/(\d+) bytes stack frame/),
      sharedBytes: number(/(\d+) bytes smem/),
    };
  });
}

/** Blocks that one multiprocessor holds at once. */
export function blocksPerMultiprocessor(entry: KernelResources): number {
  const limits = multiprocessors[entry.architecture];
  if (!limits) throw new Error(`no limits are known for ${entry.architecture}`);
  const warps = Math.ceil(entry.threads / 32);
  // Registers are allocated in units of 256 per warp; the driver reserves 1 KiB of shared memory
  // per block.
  const registers = Math.ceil((entry.registers * 32) / 256) * 256 * warps;
  return Math.min(
    limits.blocks,
    Math.floor(limits.warps / warps),
    Math.floor(65_536 / registers),
    Math.floor((limits.sharedKiB * 1024) / (entry.sharedBytes + 1024)),
  );
}

function baseName(kernel: string): string {
  return kernel.replace(/_(f16|bf16|f32)$/, "");
}

// --- internal ---

function nvccSays(nvcc: string, flags: string[]): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync([nvcc, ...flags]);
  const text = `${stdout}${stderr}`;
  if (exitCode !== 0) throw new Error(`nvcc ${flags.at(-1)}: ${text}`);
  return text;
}

/** Launch bounds by kernel, from PTX. */
function threadsOf(ptx: string): Map<string, number> {
  const bounds = new Map<string, number>();
  for (const entry of ptx.split(/\.visible \.entry /).slice(1)) {
    const [, kernel] = /^(\w+)\(/.exec(entry) ?? [];
    const [, threads] = /^[^{]*\.maxntid (\d+)/.exec(entry) ?? [];
    if (kernel && threads) bounds.set(kernel, Number(threads));
  }
  return bounds;
}
