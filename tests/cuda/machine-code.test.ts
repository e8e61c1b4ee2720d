/**
 * What the kernels' machine code is made of, in the tracked table src/bench/machine-code.md and,
 * where nvcc and a disassembler are there, as compiled now for Hopper: no local memory, tensor
 * cores where there are products, 16-byte accesses where there are tensors.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { kernelFiles } from "../../src/bench/support/kernel-resources.ts";
import {
  findDisassembler,
  machineCodeOf,
  machineCodeText,
  parseSass,
} from "../../src/bench/support/machine-code.ts";
import { findNvcc } from "../../src/setup/compiler.ts";

/** The cells of the first table of a file of src/bench/. */
function tableOf(name: string): string[][] {
  const text = readFileSync(join(import.meta.dir, "../../src/bench", name), "utf8");
  return /(?:^\|.*\n)+/m
    .exec(text)![0]
    .trimEnd()
    .split("\n")
    .map((line) =>
      line
        .slice(1, -1)
        .split("|")
        .map((cell) => cell.trim()),
    );
}

const [heads = [], , ...rows] = tableOf("machine-code.md");

/** Products on tensor cores; attention's other kernels join what those have written. */
const products = new RegExp(
  [
    "^(attention_\\d|attention_elements|cross_attention|linear_geglu|linear_int8",
    "matmul_cascaded)",
  ].join("|"),
);
/** Kernels of few numbers, or of ones that each thread computes alone. */
const narrow = new RegExp(
  [
    "^(combine_statistics|guidance_|latent_step|mask_blend|philox_normal|sinusoidal_embedding",
    "attention_elements|extrapolate_rows|apply_change|quantize_change)",
  ].join("|"),
);
const timeoutMs = 600_000;

describe("the table", () => {
  const cells = rows.flatMap(([kernel = "", ...columns]) =>
    columns.map((cell, index) => ({ kernel, cell, architecture: heads[index + 1]! })),
  );

  test("has every kernel file's kernels on six architectures", () => {
    expect(heads.length).toBe(7);
    const names = rows.map(([kernel = ""]) => kernel);
    for (const file of kernelFiles()) {
      const stem = file.replace(".cu", "").replace("guidance_rescale", "guidance");
      expect(names.some((name) => name.startsWith(stem))).toBe(true);
    }
  });

  test("has the kernels of the table of resources, which needs no disassembler", () => {
    const [, , ...resources] = tableOf("kernels.md");
    expect(rows.map(([kernel]) => kernel)).toEqual(resources.map(([kernel]) => kernel));
  });

  test("no kernel uses local memory", () => {
    expect(cells.filter(({ cell }) => cell.includes("local"))).toEqual([]);
  });

  test("every kernel waits for earlier ones before it touches memory, where GPUs have that", () => {
    expect(cells.filter(({ cell }) => cell.includes("early"))).toEqual([]);
  });

  test("products are on tensor cores, and nothing else is", () => {
    const wrong = cells.filter(
      ({ kernel, cell }) => cell !== "" && products.test(kernel) !== cell.includes("+"),
    );
    expect(wrong).toEqual([]);
    const empty = cells.filter(({ cell }) => cell === "");
    expect(new Set(empty.map(({ kernel }) => kernel.replace(/_b?f16$/, "")))).toEqual(
      new Set(["cross_attention_wgmma", "linear_geglu_wgmma"]),
    );
    expect(empty.some(({ architecture }) => architecture === "sm_90a")).toBe(false);
  });

  test("tensors move by 16 bytes", () => {
    const wide = cells.filter(({ kernel, cell }) => cell !== "" && !narrow.test(kernel));
    expect(wide.filter(({ cell }) => /(^| )0\//.test(cell))).toEqual([]);
  });
});

const { nvcc } = findNvcc(process.env);
const disassembler = nvcc && findDisassembler(nvcc.path, process.env);
if (!disassembler) process.stderr.write("machine code: skipped, no nvcc or no cuobjdump\n");

test.skipIf(!disassembler)(
  "is what nvcc makes of the products for Hopper now",
  () => {
    const tools = { nvcc: nvcc!.path, disassembler: disassembler! };
    const made = machineCodeOf(tools, ["cross_attention.cu", "linear_geglu.cu"], "90a");
    const column = heads.indexOf("sm_90a");
    expect(made.length).toBe(6);
    for (const entry of made) {
      const row = rows.find(([kernel]) => kernel === entry.kernel)!;
      expect(machineCodeText(entry)).toBe(row[column]!);
    }
  },
  timeoutMs,
);

test("what cuobjdump prints is read", () => {
  const text = [
    "\t\tFunction : scale_f16",
    "        /*0210*/              @P0 BRA 0x940 ;           /* 0x0000000400c80947 */",
    "        /*0560*/                   LDGSTS.E.BYPASS.128 [R31], desc[UR14][R12.64], P2 ;",
    "        /*0570*/              @!P1 LDG.E.U16 R3, desc[UR14][R12.64] ;",
    "        /*0580*/                   STL [R1], R3 ;",
    "\t\tFunction : multiply_f16",
    "        /*0df0*/                   HGMMA.64x256x16.F32 R24, gdesc[UR20], R24, UP0 ;",
  ].join("\n");
  const kernels = parseSass(text, "sm_90a").map(machineCodeText);
  expect(kernels).toEqual(["1 + 0/0", "1/2, 1 local, 2 early"]);
  const waiting = text.replace("/*0210*/              @P0 BRA 0x940", "/*0210*/  ACQBULK");
  const waited = parseSass(waiting, "sm_90a").map(machineCodeText);
  expect(waited).toEqual(["1 + 0/0", "1/2, 1 local"]);
  expect(parseSass(text, "sm_80").map(machineCodeText)).toEqual(waited);
});
