/**
 * Faults of one of two processes that generate an image together, each with an emulated GPU: how
 * both end, that no image is broken, and that the next two work.
 */
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../support/rendezvous.ts";
import { golden, main } from "./programs.ts";
import { ended, filesIn, isCrash, plainRun, type Run } from "./run.ts";

/** Of process 0, which writes the image, and process 1. Null: it ends well. */
type Ends = readonly [RegExp | null, RegExp | null];

export interface ProcessRow {
  name: string;
  apply(runs: readonly [Run, Run]): void;
  ends: Ends;
}

const unet = "unet/diffusion_pytorch_model.safetensors";
const stopMs = 1500;
/** More than the silence after which a process is given up. */
const longStopMs = 65_000;
const silent = (index: number) =>
  new RegExp(`^error: Process ${index} .*went away .*\\(it sent nothing for 60 s\\)`);
const differ = /^error: Process 1 and process 0 differ in the model/;

export const processRows: readonly ProcessRow[] = [
  {
    name: "a process stops for a moment",
    apply: ([zero]) => stop(zero, stopMs),
    ends: [null, null],
  },
  {
    name: "a process stops for longer than it may be silent",
    apply([zero, one]) {
      for (const run of [zero, one]) run.limitMs = 100_000;
      stop(one, longStopMs);
    },
    ends: [silent(1), silent(0)],
  },
  {
    name: "process 0 is killed",
    apply: ([zero]) => void zero.during.push((child) => child.kill("SIGKILL")),
    ends: [/./, /^error: .*Process 0 \(rank 0\) went away/],
  },
  {
    name: "a process has other weights",
    apply: ([, one]) => {
      const path = join(one.folder, "model-1", unet);
      // Processes compare pieces of their files.
      writeFileSync(path, readFileSync(path).fill(0x11, 1_000_000, 1_500_000));
    },
    ends: [differ, differ],
  },
  {
    name: "a process's weights are cut",
    apply: ([, one]) => truncateSync(join(one.folder, "model-1", unet), 5000),
    ends: [differ, differ],
  },
  {
    name: "process 0's disk is full",
    apply: ([zero]) => void zero.calls.push(`write:ENOSPC:1:99:${join(zero.folder, "out")}`),
    ends: [/^error: Cannot write .*(ENOSPC|full)/, null],
  },
];

/** What is wrong with the two processes of a row, and the next two; empty where nothing is. */
export async function processProblems({ apply, ends }: ProcessRow): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-fault-"));
  const prepare = () => {
    for (const name of ["model-0", "model-1"]) {
      rmSync(join(folder, name), { recursive: true, force: true });
      cpSync(golden, join(folder, name), { recursive: true });
    }
  };
  try {
    mkdirSync(join(folder, "out"));
    prepare();
    const runs = pairIn(folder);
    apply(runs);
    const first = await Promise.all(runs.map(ended));
    const isDone = ends[0] === null;
    const left = Object.keys(filesIn(join(folder, "out"), /^$/));
    prepare();
    const next = await Promise.all(pairIn(folder).map(ended));
    const wrong = (which: string, all: typeof first, wanted: Ends) =>
      all.flatMap(({ exitCode, stderr }, i) => {
        const end = wanted[i] ?? null;
        const isRight = (exitCode === 0) === (end === null) && isSaid(stderr, end);
        return isRight ? [] : [`process ${i} ${which} ends with ${exitCode}: ${stderr}`];
      });
    return [
      ...wrong("", first, ends),
      ...(Bun.deepEquals(left, isDone ? ["image.png"] : []) ? [] : [`it leaves ${left}`]),
      ...wrong("of the next", next, [null, null]),
    ];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

// --- internal ---

function stop(run: Run, forMs: number): void {
  run.during.push((child) => {
    child.kill("SIGSTOP");
    setTimeout(() => child.kill("SIGCONT"), forMs);
  });
}

function isSaid(stderr: string, end: RegExp | null): boolean {
  if (isCrash(stderr)) return false;
  return end === null || end.test(stderr.trimEnd().split("\n").at(-1) ?? "");
}

function pairIn(folder: string): readonly [Run, Run] {
  const port = String(freePort());
  const of = (index: 0 | 1): Run => {
    const how = ["--model", `model-${index}`, "--device", "cuda-emulated", "--seed", "7"];
    const size = ["--width", "32", "--height", "64", "--steps", "6", "--no-split-batch"];
    const files = ["--out", "out/image.png", "--no-metadata"];
    const args = [main, "sample", "a cat", ...how, ...size, ...files];
    const world = { RANK: String(index), WORLD_SIZE: "2" };
    return plainRun(folder, args, { ...world, MASTER_ADDR: "127.0.0.1", MASTER_PORT: port });
  };
  return [of(0), of(1)];
}
