/**
 * The table of faults of programs: one at a time, and in pairs that the seed chooses.
 */
import fc from "fast-check";
import { sampled } from "../support/seed.ts";
import { diskFault, extractionDisk, pullDisk, sampleDisk } from "./disk-faults.ts";
import type { Fault, Row } from "./fault.ts";
import { fileFaults, fileFaultsMeanwhile } from "./file-faults.ts";
import { gpuFaults } from "./gpu-faults.ts";
import { limitFaults, memoryFault, processFaults, signalFaults } from "./limit-faults.ts";
import { loadingFaults, mappedMeanwhile, writtenFaults } from "./mapped-faults.ts";
import { networkFaults } from "./network-faults.ts";
import {
  extraction,
  fileSample,
  gpuSample,
  longSample,
  loraSample,
  type Program,
  pulling,
  sample,
} from "./programs.ts";

export const pull = await pulling();

/** Calls of memory in a run of `sample`, of which the seed chooses. */
const memoryCall = fc.integer({ min: 1, max: 3500 });
const memoryCalls = sampled(fc.uniqueArray(memoryCall, { minLength: 10, maxLength: 10 }), 1).flat();

const diskFaults = sampleDisk.map((each) => diskFault(sample, each));
const pullFaults = [...pullDisk.map((each) => diskFault(pull, each)), ...networkFaults(pull.hub)];
const memoryFaults = memoryCalls.map((first, i) => memoryFault(first, i % 3 === 0 ? 1e9 : 1));

export const programRows: readonly Row[] = [
  ...rowsOf("sample", sample, [...diskFaults, ...fileFaults, ...limitFaults, ...memoryFaults]),
  ...rowsOf("a long sample", longSample, [...fileFaultsMeanwhile, ...signalFaults]),
  ...rowsOf("pull", pull, pullFaults),
  ...rowsOf(
    "extraction",
    extraction,
    extractionDisk.map((each) => diskFault(extraction, each)),
  ),
];

/** Of files on a disk of their own, which a program of ours serves. */
export const diskRows: readonly Row[] = [
  ...rowsOf("sample", sample, [
    ...loadingFaults("model", "model", [1, 5, 30, 90]),
    ...writtenFaults,
  ]),
  ...rowsOf("a single file", fileSample, loadingFaults("single", "one", [1, 5, 90])),
  ...rowsOf("a LoRA", loraSample, loadingFaults("loras", "style", [1, 2])),
  ...rowsOf("a long sample", longSample, mappedMeanwhile),
];

/** Of another user than root. */
export const processLimitRows = rowsOf("sample", sample, processFaults);

/** On emulated GPUs, which take seconds. */
export const gpuRows = rowsOf("sample on GPUs", gpuSample, gpuFaults);

const meanwhile = [
  ...sampleDisk.map((each) => diskFault(longSample, each)),
  ...[...fileFaultsMeanwhile, ...signalFaults],
];

/** Two kinds at once, of what can befall the same program. */
export const pairRows: readonly Row[] = [
  ...pairsOf("sample", sample, diskFaults, [...fileFaults, ...limitFaults, ...memoryFaults], 8),
  ...pairsOf("sample", sample, fileFaults, [...limitFaults, ...memoryFaults], 6),
  ...pairsOf("a long sample", longSample, meanwhile, meanwhile, 4),
  ...pairsOf("pull", pull, pullFaults.slice(0, pullDisk.length), networkFaults(pull.hub), 6),
];

// --- internal ---

function rowsOf(title: string, program: Program, faults: readonly Fault[]): Row[] {
  return faults.map((fault) => ({ name: `${title}: ${fault.name}`, program, faults: [fault] }));
}

function pairsOf(
  title: string,
  program: Program,
  some: readonly Fault[],
  others: readonly Fault[],
  count: number,
): Row[] {
  const chosen = fc.tuple(fc.nat(some.length - 1), fc.nat(others.length - 1));
  return sampled(chosen, count).map(([one, other]) => {
    const faults = [some[one]!, others[other]!];
    const names = faults.map(({ name }) => name).join(" and ");
    return { name: `${title}: ${names}`, program, faults };
  });
}
